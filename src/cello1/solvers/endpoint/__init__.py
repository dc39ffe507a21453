"""Language models behind a server of the OpenAI kind."""

from cello1.solvers.endpoint.solver import EndpointSolver

__all__ = ["EndpointSolver"]
