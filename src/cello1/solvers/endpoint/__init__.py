"""Language models behind an OpenAI-compatible server."""

from cello1.solvers.endpoint.solver import EndpointSolver

__all__ = ["EndpointSolver"]
