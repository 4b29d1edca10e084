"""A table of runs: a row for each config, with the mean over its seeds of every metric."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from utils.config.identity import RUNTIME_KEYS
from utils.errors import UserError, nearest
from utils.evaluation.records import PROTOCOL
from utils.sweeps.results import Protocol, Result, protocol
from utils.sweeps.tables import Cell, Means, Table
from utils.tasks.registry import TASKS


class Measure(NamedTuple):
    """A metric as it was measured in one way, with a title that tells it from other ways."""

    metric: str
    protocol: Protocol
    title: str


class Group(NamedTuple):
    """Runs that differ in their seed alone (or in what else is averaged over), and what is their own."""

    name: str
    keys: dict[str, Any]
    steps: str
    runs: list[Result]

    @property
    def label(self) -> str:
        """What a curve is called: the name, the number of runs, and whether they are unfinished."""
        return f"{self.name} ({len(self.runs)}{'' if self.runs[0].finished else ', unfinished'})"


def measures_of(results: list[Result], metrics: list[str], over: list[str]) -> list[Measure]:
    """The metrics, each as often as it was measured in different ways; without ``metrics`` the main ones of the games.

    Raises UserError for a metric that no run has.
    """
    known = list(dict.fromkeys(r["metric"] for x in results for r in x.records if r["kind"] == "metric"))
    for metric in metrics:
        if metric not in known:
            raise UserError(f"No run has the metric '{metric}'; {nearest(metric, known or ['none'])}.")
    found = []
    for metric in metrics or main_metrics(results, known):
        ways = list(dict.fromkeys(_way(r, over) for x in results for r in x.measured(metric)))
        differing = [i for i in range(len(PROTOCOL)) if len({way[i] for way in ways}) > 1]
        for way in ways:
            about = ", ".join(f"{PROTOCOL[i]} {str(way[i])[:12]}" for i in differing)
            found.append(Measure(metric, way, f"{metric} ({about})" if about else metric))
    return found


def main_metrics(results: list[Result], known: list[str]) -> list[str]:
    """What an oracle knows, and what the games choose by, or may choose by."""
    tasks = [TASKS[name] for name in dict.fromkeys(result.config["game.name"] for result in results)]
    oracle = [r["metric"] for x in results for r in x.records if r.get("oracle")]
    chosen = [name for task in tasks for name in ([task.best_metric] if task.best_metric in known else task.metrics)]
    return [name for name in dict.fromkeys([*oracle, *chosen]) if name in known]


def _way(record: dict[str, Any], over: list[str]) -> Protocol:
    """How a value was measured; where the mean is to be over data, their name and size are not asked."""
    data = ("samples", "reference", "reference_samples") if any(key.startswith("data.") for key in over) else ()
    return protocol({**record, **dict.fromkeys(data)})


def groups_of(results: list[Result], over: list[str], warn: Callable[[str], None]) -> list[Group]:
    """Runs by what differs between their configs other than the keys to take the mean ``over``.

    Unfinished runs are grouped by their step, too. Of two runs that are the same the later is left out, and told.
    """
    keys = [key for key in differing(results) if key not in over]
    groups: dict[str, list[Result]] = {}
    seen: dict[str, Result] = {}
    for result in results:
        own = [result.config.get(key) for key in keys]
        place = repr((own, result.step, result.finished))
        other = seen.setdefault(repr((place, [result.config.get(key) for key in over])), result)
        if other is not result:
            warn(f"{result.folder.path} is left out: it is the same run as {other.folder.path}.")
            continue
        groups.setdefault(place, []).append(result)
    return [_group(keys, runs) for runs in groups.values()]


def differing(results: list[Result]) -> list[str]:
    """The keys in which configs differ, of what identifies a run and its length.

    Where a section has another name, its other keys are others too, and the name says it all.
    """
    configs = [result.config for result in results]
    runtime = tuple(f"{name}." for name in RUNTIME_KEYS if name != "train.steps")
    found = []
    for key in dict.fromkeys(key for config in configs for key in config):
        if f"{key}.".startswith(runtime):
            continue
        absent = object()
        if any(config.get(key, absent) != configs[0].get(key, absent) for config in configs):
            found.append(key)
    named = [key.removesuffix("name") for key in found if key.endswith(".name")]
    return [key for key in found if key.endswith(".name") or not any(key.startswith(name) for name in named)]


def _group(keys: list[str], runs: list[Result]) -> Group:
    first = runs[0]
    names = dict.fromkeys(re.sub(r"-seed=-?\d+", "", run.folder.path.name) for run in runs)
    name = next(iter(names)) + (" ..." if len(names) > 1 else "")
    steps = str(first.step) if first.finished else f"{first.step}, unfinished"
    return Group(name, {key: first.config.get(key, "-") for key in keys}, steps, runs)


def table_of(groups: list[Group], measures: list[Measure], over: list[str], by: list[str], at: list[int]) -> Table:
    """A row a group: name, keys, runs, steps, seconds; and of every measure the last and the best value.

    What was measured once in each run has one column. There are also the values where the metrics ``by`` are best, and
    those ``at`` given steps.
    """
    keys = list(groups[0].keys)
    titles = ["run", *keys, "seeds" if over == ["seed"] else "runs", "steps", "seconds", "CPU seconds"]
    columns: list[list[Cell]] = [[_about(group) for group in groups]]
    for measure in measures:
        values = [[values_of(run, measure, over) for run in group.runs] for group in groups]
        once = all(len(own) < 2 for row in values for own in row)
        titles += [measure.title] if once else [f"{measure.title}, last", f"{measure.title}, best"]
        columns.append([Means([own[max(own)] if own else None for own in row]) for row in values])
        for metric in [*([] if once else [measure.metric]), *by]:
            columns.append([_at_best(metric, group, row) for group, row in zip(groups, values, strict=True)])
        titles += [f"{measure.title}, at best {metric}" for metric in by]
        columns += [[Means([own.get(step) for own in row]) for row in values] for step in at]
        titles += [f"{measure.title}, step {step}" for step in at]
    return Table(titles, [[*about, *rest] for about, *rest in zip(*columns, strict=True)])


def _about(group: Group) -> list[Cell]:
    """The cells of a group that are of no metric."""
    times = [Means([run.seconds_at(run.step, clock) for run in group.runs], 0) for clock in ("seconds", "cpu_seconds")]
    return [group.name, *map(str, group.keys.values()), str(len(group.runs)), group.steps, *times]


def _at_best(metric: str, group: Group, values: list[dict[int, float]]) -> Means:
    """The ``values`` by step of a group's runs, each at the step at which ``metric`` is best."""
    return Means([own.get(run.best_step(metric, own)) for run, own in zip(group.runs, values, strict=True)])


def values_of(run: Result, measure: Measure, over: list[str]) -> dict[int, float]:
    """The values of a measure by step."""
    return {r["step"]: r["value"] for r in run.measured(measure.metric) if _way(r, over) == measure.protocol}
