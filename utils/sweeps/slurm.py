"""A sweep as an array of SLURM jobs, each run as ``scripts/slurm.sh`` runs it."""

import shlex
from pathlib import Path

from utils.sweeps.rows import Row

SCRIPT = Path(__file__).parents[2] / "scripts/slurm.sh"


def array_script(rows: list[Row]) -> str:
    """The text of an sbatch script that runs one row a task. Its directives, and what it does, are those of SCRIPT."""
    directives = [line for line in SCRIPT.read_text(encoding="utf-8").splitlines() if line.startswith("#SBATCH")]
    arguments = [f"    {shlex.quote(shlex.join(row.words))}" for row in rows]
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            f"# {len(rows)} runs. Submit it from the folder that holds train.py; options of sbatch go before its name.",
            *directives,
            f"#SBATCH --array=0-{len(rows) - 1}",
            "rows=(",
            *arguments,
            ")",
            'eval "set -- ${rows[SLURM_ARRAY_TASK_ID]}"',
            'source "${SLURM_SUBMIT_DIR:-.}/scripts/slurm.sh"',
        ]
    )
