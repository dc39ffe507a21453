"""Old import path of the sections of training; they are in :mod:`cello1.recipes` now."""

from cello1.recipes.base import BaseModelSettings, Order, Stage
from cello1.recipes.distill import DistillSettings
from cello1.recipes.section import Section
from cello1.recipes.sft import AdapterSection, SftSettings

__all__ = [
    "AdapterSection",
    "BaseModelSettings",
    "DistillSettings",
    "Order",
    "Section",
    "SftSettings",
    "Stage",
]
