"""Making HTML text from values that may hold anything.

``text`` makes any value safe between tags and inside quoted attributes; nothing from outside reaches a page around it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from recon.evaluate.charts import number

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def text(value: object) -> str:
    """Return ``value`` escaped for HTML; what UTF-8 or HTML cannot hold (a file name may) becomes U+FFFD."""
    return escape(_UNPRINTABLE.sub("\ufffd", str(value)), quote=True)


def isolated(value: object) -> str:
    """Return a name from outside, kept from turning the text around it to right-to-left."""
    return f"<bdi>{text(value)}</bdi>"


@dataclass(frozen=True)
class Section:
    """A titled part of the page; without a body it is left out. ``lead`` and ``body`` are HTML."""

    key: str
    title: str
    lead: str
    body: str

    def html(self) -> str:
        """Return the section's HTML."""
        lead = f'<p class="lead">{self.lead}</p>' if self.lead else ""
        heading = f'<h2 id="{self.key}-title">{self.title}</h2>'
        return f'<section id="{self.key}" aria-labelledby="{self.key}-title">{heading}{lead}\n{self.body}\n</section>'


# --- reading result.json, whatever is in it ---


def mapping(value: Any) -> Mapping[str, Any]:
    """Return ``value`` if it is a dictionary, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: Any) -> Sequence[Any]:
    """Return ``value`` if it is a list, else an empty one."""
    return value if isinstance(value, list | tuple) else ()


def finite(value: Any) -> float | None:
    """Return ``value`` if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return None
    return float(value) if math.isfinite(value) else None


# --- writing figures ---


def metric(key: str, value: float) -> str:
    """Return a PSNR with two decimals, any other metric with three."""
    if not math.isfinite(value):
        return number(value)
    return f"{value:.2f}" if key == "psnr" else f"{value:.3f}"


def memory_size(count: float) -> str:
    """Return bytes as people say them: 11 MB, 1.8 GB."""
    for power, unit in ((30, "GB"), (20, "MB"), (10, "kB")):
        if count >= 2**power:
            return f"{count / 2**power:.{1 if unit == 'GB' else 0}f} {unit}"
    return f"{count:.0f} bytes"
