"""The list of all jobs, kept in SQLite so that a folder of thousands is listed at once.

The index holds nothing that the job directories do not say: it is brought up to date whenever it is read, and made
anew when it is missing or damaged. What a job's state hangs on lies at the top of its directory and is replaced by
renaming, so the directory's time of change tells whether a row is stale; jobs that have not ended are looked at anyway.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path

from app.job_state import BUSY, Summary, peek, summarise
from recon.errors import ReconError
from recon.job import is_job

_COLUMNS = tuple(f.name for f in fields(Summary))


class Index:
    """The jobs of ``folder`` as rows in the file ``path``. Safe to use from several threads."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder, self.path = folder, path
        self._lock = threading.Lock()
        self._database = self._open()

    def jobs(self, words: str = "", limit: int = -1) -> list[Summary]:
        """Return the jobs, newest first.

        Args:
            words: of their title, pipeline or status; all have to occur.
            limit: most of them, all where negative.
        """
        with self._lock:
            self._update()
            where, values = "", []
            for word in words.split():
                where += f" {'AND' if where else 'WHERE'} instr(lower(title||' '||pipeline||' '||status), ?)"
                values.append(word.lower())
            query = f"SELECT {','.join(_COLUMNS)} FROM jobs{where} ORDER BY created DESC, id DESC LIMIT ?"
            rows = self._database.execute(query, (*values, limit)).fetchall()
        found = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
        return [Summary(**{**row, "metrics": json.loads(row["metrics"])}) for row in found]

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    def _open(self) -> sqlite3.Connection:
        for _ in range(2):
            database = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
            with suppress(sqlite3.DatabaseError):
                columns = [row[1] for row in database.execute("PRAGMA table_info(jobs)")]
                if columns == [*_COLUMNS, "stamp"] and database.execute("PRAGMA quick_check").fetchone() == ("ok",):
                    return database
                if not columns:
                    database.execute(f"CREATE TABLE jobs ({','.join(_COLUMNS)}, stamp, PRIMARY KEY (id))")
                    return database
            database.close()
            self.path.unlink(missing_ok=True)  # damaged, or an older version's: the directories know it all
        raise sqlite3.DatabaseError(f"{self.path} cannot be used")

    def _update(self) -> None:
        try:
            known = {row[0]: row[1:] for row in self._database.execute("SELECT id, stamp, status FROM jobs")}
        except sqlite3.DatabaseError:
            self._database.close()
            self._database, known = self._open(), {}
        there = set()
        with self._database:  # one transaction
            self._database.execute("BEGIN")
            for entry in os.scandir(self.folder):
                with suppress(OSError, ReconError):  # it may be deleted at this very instant
                    if entry.name.startswith(".") or not entry.is_dir():
                        continue
                    there.add(entry.name)
                    self._refresh(Path(entry.path), entry.stat().st_mtime_ns, known.get(entry.name))
            self._database.executemany("DELETE FROM jobs WHERE id = ?", [(job,) for job in set(known) - there])

    def _refresh(self, folder: Path, stamp: int, old: tuple[int, str] | None) -> None:
        if (old and old[0] == stamp and (old[1] not in BUSY or peek(folder) == old[1])) or not is_job(folder):
            return
        row = {**asdict(summarise(folder)), "stamp": stamp}
        row["metrics"] = json.dumps(row["metrics"])
        self._database.execute(f"REPLACE INTO jobs VALUES ({','.join('?' * len(row))})", tuple(row.values()))
