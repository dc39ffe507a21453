"""Map tissues to organ systems, so that the lung of a puzzle is near the trachea of a table."""

from __future__ import annotations

import re
from functools import cache

# Words of tissue names (UBERON labels, contexts) -> organ system; the first match is used.
_SYSTEMS = (
    ("blood", r"blood|pbmcs?|leukocytes?"),
    ("bone marrow", r"bone marrow"),
    ("eye", r"retina\w*|eyes?|fovea|macula|cornea\w*|choroid"),
    (
        "airway",
        r"lungs?|trachea\w*|bronch\w*|nose|nasal|pleura\w*|airways?|alveol\w*|respiratory|\w*pharynx|larynx",
    ),
    ("lymphoid organ", r"spleen|lymph nodes?|thymus|tonsils?"),
    ("kidney", r"kidneys?|renal|nephro\w*|ureter|urinary|bladder|urethra"),
    ("liver", r"liver|hepatic|gall ?bladder|bile"),
    ("pancreas", r"pancrea\w*|islets?"),
    (
        "gut",
        r"\w*intestin\w*|ileum|colon|rectum|duoden\w*|jejunum|caecum|cecum|appendix|mesenter\w*",
    ),
    ("upper gut", r"stomach|gastric|o?esophag\w*|oral|mouth|tongue|gingiva|saliva\w*|parotid"),
    ("heart", r"heart|cardiac|atrium|aorta|arter\w*|veins?|vascul\w*"),
    ("muscle", r"muscles?|limbs?|tendon"),
    (
        "brain",
        r"\w*brain|cortex|cerebr\w*|cerebell\w*|gyrus|lobe|spinal|telencephal\w*|hippocamp\w*|nerves?|skull",
    ),
    ("skin", r"skin|epiderm\w*|dermis|hair"),
    ("fat", r"adipose|omentum|fat|peritone\w*"),
    ("placenta", r"placenta\w*|decidua\w*|chorion\w*|umbilical"),
    ("reproductive", r"ovar\w*|uter\w*|cervix|fallopian|endometri\w*|breasts?|mammary|vagina"),
    ("male reproductive", r"testi\w*|prostat\w*|epididym\w*|penis"),
    ("endocrine", r"adrenal|thyroid|pituitary"),
    ("bone", r"bone|rib|cartilage|joint|synovi\w*"),
)


@cache
def system(tissue: str | None) -> str | None:
    """Return the organ system of a tissue, its own name where none matches, or None without one."""
    if tissue is None or not tissue.strip() or tissue.strip().casefold() == "unknown":
        return None
    name = tissue.strip().casefold()
    return next((found for found, words in _SYSTEMS if re.search(rf"\b(?:{words})\b", name)), name)


def tissue_of_context(context: str) -> str | None:
    """Return the tissue that a context names (`originating from the lung.`), or None."""
    found = re.search(r"originat\w+ from (?:the )?([^.;,]+)|(?:tissue|organ): ?([^.;,]+)", context)
    return None if found is None else (found.group(1) or found.group(2)).strip()
