"""The side *Jobs*: all jobs as cards with buttons."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape

from app.files import link
from app.job_state import BUSY, Summary
from app.jobs import PICTURE
from app.page_view import badge, bytes_text, number, took

SCRIPT = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-do]');
  if (!button || (button.dataset.ask && !confirm(button.dataset.ask))) return;
  trigger('click', {do: button.dataset.do, job: button.dataset.job});
});
"""
"""Tells the server which button of which card was pressed."""

ACTIONS = ("open", "resume", "cancel", "clone", "delete")


def cards(jobs: Sequence[Summary], more: bool, words: str) -> str:
    """Return the jobs; ``more`` says that there are others, ``words`` what was looked for."""
    if not jobs:
        text = "No job has these words." if words.strip() else "No jobs yet. Begin one under New."
        return f'<div class="eg-welcome"><p>{text}</p></div>'
    rest = '<p class="eg-soon">Older jobs are not shown: look for their name above.</p>' if more else ""
    return f'<div class="eg-list">{"".join(map(_card, jobs))}</div>{rest}'


def _card(job: Summary) -> str:
    name = escape(job.title)
    image = f'<img loading="lazy" alt="" src="{escape(link(job.id, PICTURE))}" onerror="this.remove()">'
    picture = f'<span class="eg-blank" aria-hidden="true">{image}</span>'
    facts = [time.strftime("%d %b %Y %H:%M", time.localtime(job.created)), f"{job.pipeline} · {job.preset}"]
    facts += [took(job.seconds)] if job.seconds else []
    facts += [f"{number(job.metrics['psnr'])} dB"] if "psnr" in job.metrics else []
    facts.append(bytes_text(job.size))
    busy = job.status in BUSY
    buttons = [_button("open", "Open", job)]
    if job.status in ("cancelled", "failed", "interrupted"):
        buttons.append(_button("resume", "Resume", job))
    if busy:
        buttons.append(_button("cancel", "Cancel", job))
    buttons.append(_button("clone", "Clone", job))
    if not busy:
        buttons.append(_button("delete", "Delete", job, f"Delete {job.title} with all its files?"))
    error = f'<p class="eg-why">{escape(job.error)}</p>' if job.error and job.status == "failed" else ""
    return (
        f'<article class="eg-item">{picture}<div><h4>{name} {badge(job.status)}</h4>'
        f"<p>{' · '.join(map(escape, facts))}</p>{error}<p class='eg-buttons'>{''.join(buttons)}</p></div></article>"
    )


def _button(action: str, text: str, job: Summary, ask: str = "") -> str:
    question = f' data-ask="{escape(ask)}"' if ask else ""
    return (
        f'<button type="button" data-do="{action}" data-job="{escape(job.id)}"{question} '
        f'aria-label="{text} {escape(job.title)}">{text}</button>'
    )
