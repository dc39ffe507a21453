"""Classical solvers: chance, marker genes, centroids."""
