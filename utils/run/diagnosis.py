"""The verdict on a run as text: what is wrong, on what numbers, what healthy runs showed, and one thing to try."""

from dataclasses import replace
from typing import NamedTuple

from utils.config.sections import Config
from utils.evaluation.domain_critics import verdict
from utils.evaluation.illnesses import Finding, History, findings, is_of_domains
from utils.evaluation.records import readable
from utils.run.examination import SIGNS, Reference, command, compared, own_name, reference_of
from utils.run.folder import RunFolder


class Diagnosis(NamedTuple):
    """All that is said of a run; ``not_seen`` is why data and checkpoint were not looked at, if they were not."""

    folder: RunFolder
    config: Config
    run: History
    found: list[Finding]
    reference: Reference | None
    not_seen: str

    @property
    def verdict(self) -> str:
        """The name of the worst finding; "done" or "learning" where there is none."""
        return self.found[0].name if self.found else "done" if self.run.finished else "learning"


def diagnosed(folder: RunFolder, config: Config, run: History, not_seen: str = "") -> Diagnosis:
    """The diagnosis of a run by its history."""
    reference = reference_of(config)
    run = replace(run, healthy=reference.values_at(run.step) if reference else {})
    return Diagnosis(folder, config, run, findings(run), reference, not_seen)


def text(diagnosis: Diagnosis) -> str:
    """The page for a terminal."""
    run, steps = diagnosis.run, diagnosis.config.train.steps
    lines = [f"{diagnosis.folder.path}, step {run.step} of {steps or '...'}: {diagnosis.verdict}", *verdicts(diagnosis)]
    lines += ["", *table(diagnosis)]
    if diagnosis.not_seen:
        lines += ["", f"Data and checkpoint were not looked at: {diagnosis.not_seen}"]
    return "\n".join(lines)


def verdicts(diagnosis: Diagnosis) -> list[str]:
    """A few lines for each finding, the worst first; of a healthy run what to do next."""
    lines = []
    for finding in diagnosis.found:
        lines += [f"{finding.name}: {finding.evidence}", compared(finding, diagnosis.run, diagnosis.reference)]
        lines.append(f"Try: {todo}" if (todo := command(diagnosis.folder, finding)) else "")
    if not diagnosis.found:
        said = verdict(diagnosis.run.metrics) if is_of_domains(diagnosis.run) else ""
        lines.append(said or "Nothing is wrong in what the records say.")
        path = diagnosis.folder.path
        then = f"sample.py {path}" if diagnosis.run.finished else f"train.py {path / 'config.yaml'}"
        lines.append(f"Next: python {then}")
    return [line for line in lines if line]


def table(diagnosis: Diagnosis) -> list[str]:
    """The vital signs of the last log line and the last evaluation, beside a healthy run's at that step."""
    run, reference = diagnosis.run, diagnosis.reference
    rows = [("sign", "now", f"healthy ({reference.name})" if reference else "healthy")]
    for sign in SIGNS:
        value = (run.series(sign) or run.series(own_name(sign)) or [None])[-1]
        rows.append((sign, shown(value), shown(reference.at(sign, run.step)) if reference else "unknown"))
    for name in dict.fromkeys(record["metric"] for record in run.metrics):
        value = next((r["value"] for r in reversed(run.metrics) if r["metric"] == name), None)
        rows.append((name, shown(value), shown(reference.at(name, run.step)) if reference else "unknown"))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return [f"{a:{widths[0]}}  {b:>{widths[1]}}  {c}" for a, b, c in rows]


def shown(value: float | None) -> str:
    """A number with three digits; "unknown" where there is none, as in runs of older versions."""
    if value is None:
        return "unknown"
    return readable(value) if isinstance(value, int) else f"{value:.3g}"
