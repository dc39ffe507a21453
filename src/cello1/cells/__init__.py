"""Where cells come from: AnnData files, read in constant memory, and what is drawn from them."""
