"""Distillation by rejection sampling."""
