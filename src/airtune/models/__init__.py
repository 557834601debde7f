"""The base model: load, know its anatomy, batch its data, fit it, score it.

Reading map: `base` loads a model and says which one it is -> `anatomy` lists its adapter sites -> `batches` turns
text into token batches -> `fit` trains chosen parameters -> `score` measures loss and metric, item by item, `heads`
for many heads at once -> `probe` is the baseline without an adapter.
"""

from airtune.models.anatomy import FAMILIES, Family, Site, find_sites
from airtune.models.base import EMBEDDED, BaseModel, load_base, weights_hash
from airtune.models.batches import Batch, Items, sentences, windows
from airtune.models.fit import FitPlan, Step, fit, new_optimiser
from airtune.models.heads import score_heads
from airtune.models.probe import head_only
from airtune.models.score import Score, item_outcomes, score

__all__ = [
    "EMBEDDED",
    "FAMILIES",
    "BaseModel",
    "Batch",
    "Family",
    "FitPlan",
    "Items",
    "Score",
    "Site",
    "Step",
    "find_sites",
    "fit",
    "head_only",
    "item_outcomes",
    "load_base",
    "new_optimiser",
    "score",
    "score_heads",
    "sentences",
    "weights_hash",
    "windows",
]
