"""Your AnnData in, annotated AnnData out.

A cluster is settled by several batches. A batch is a puzzle: one cell of each of some clusters,
all of one donor, and the candidate types, each to be given once. What the solver says of the
cells of a cluster is pooled into votes; the cluster takes the type with most of them, and the
share of votes, with a temperature fitted on donors of known type, is the confidence.
"""
