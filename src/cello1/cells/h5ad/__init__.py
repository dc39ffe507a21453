"""Read an .h5ad file: matrices, columns and names, in constant memory."""
