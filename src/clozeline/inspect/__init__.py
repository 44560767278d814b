"""Looking inside an encoder: how it reads, what its parts know, and what its answers rest on.

Each function takes a loaded model and gives a `View`: print it, or `save` its numbers, a figure or an offline page.
"""

from clozeline.inspect.attention import attention
from clozeline.inspect.attribution import attribution
from clozeline.inspect.causal import causal_gap
from clozeline.inspect.heads import heads, prune
from clozeline.inspect.masking import corruption, fill_mask
from clozeline.inspect.positions import positions
from clozeline.inspect.probing import probe
from clozeline.inspect.senses import senses
from clozeline.inspect.tokenization import corpus_pieces, tokenization
from clozeline.inspect.tracing import trace
from clozeline.inspect.view import View

__all__ = [
    "View",
    "attention",
    "attribution",
    "causal_gap",
    "corpus_pieces",
    "corruption",
    "fill_mask",
    "heads",
    "positions",
    "probe",
    "prune",
    "senses",
    "tokenization",
    "trace",
]
