"""Annotate an AnnData or a file: label every cluster, with confidence and reasons.

A classical solver rates the clusters by their genes. A language model answers batches: a batch is
a puzzle with one cell of each of some clusters, all of one donor, and the candidate types, each to
be given once. Its answers are pooled into votes. Evidence and votes become probabilities, with a
temperature fitted on cells of known type.
"""
