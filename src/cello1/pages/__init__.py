"""Pages of HTML from templates: escaped, self-contained, one style."""
