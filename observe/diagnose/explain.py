"""Evidence in words: every sentence carries its number and unit, and the question that gives the number again.

The same input gives the same text. A sentence whose number only the whole diagnosis gives has no question of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from observe.diagnose.blame import Blamer, remixed
from observe.diagnose.compare import Question
from observe.diagnose.contrast import Contrast
from observe.diagnose.graph import Floats
from observe.diagnose.levels import Periods
from observe.diagnose.narrow import Place
from observe.diagnose.rank import Suspect
from observe.diagnose.releases import Release, Train
from observe.diagnose.resources import Finding
from observe.diagnose.symptoms import Symptom
from observe.types import Evidence, Numbers, RuledOut

MAX_NAMES = 4
LONG_ID = 24
MORE, SOME = 1.25, 0.05
"""Calls per request that changed by less than this part and number are the same calls."""


def ms(value: float) -> str:
    """
    >>> ms(0.1234), ms(12.34), ms(1234.5), ms(23456.7)
    ('0.12 ms', '12.3 ms', '1234 ms', '23.5 s')
    """
    size = abs(value)
    if size >= 10_000:
        return f"{value / 1000:.1f} s"
    return f"{value:.2f} ms" if size < 1 else f"{value:.1f} ms" if size < 100 else f"{value:.0f} ms"


def percent(ratio: float) -> str:
    """
    >>> percent(0.4567), percent(0.0012)
    ('46 %', '0.12 %')
    """
    return f"{100 * ratio:.0f} %" if abs(ratio) >= 0.1 else f"{100 * ratio:.2g} %"


def evidence(
    suspect: Suspect, place: Place, members: Sequence[Symptom], blamer: Blamer, folded: frozenset[int] = frozenset()
) -> tuple[Evidence, ...]:
    """Reasons for one cause, the strongest kind first. It stands for the services `folded`, too."""
    found: list[Evidence] = []
    picture = blamer.picture
    if suspect.node == blamer.outside:
        outside = blamer.traffic.outside.sum(axis=1)
        text = f"requests from outside went from {outside[0]:.1f} to {outside[1]:.1f} per second"
        numbers = ("before", float(outside[0])), ("after", float(outside[1]))
        asked = Question("outside_requests_per_s", picture.periods)
        return (Evidence("traffic", text, numbers, asked.query),)
    if suspect.node < len(picture.services):
        found += _own(suspect, blamer)
        # Who gets no calls makes none: what a silent service calls less is no reason.
        silent = bool(np.any(blamer.lost & (picture.edges.callee == suspect.node)))
        found += [] if silent else _structure(suspect, blamer)
    found += _edges(suspect, blamer)
    found += _accounts(suspect, members, blamer, folded)
    found += _place(place, suspect, picture.periods)
    found += _order(suspect)
    return tuple(found)


def _own(suspect: Suspect, blamer: Blamer) -> list[Evidence]:
    nodes, s = blamer.picture.nodes, suspect.node
    found = []
    speed, noise = float(nodes.speed_ms[s]), float(nodes.speed_error_ms[s])
    if speed > 2 * noise:
        text = (
            f"self time of {suspect.name} rose from {ms(nodes.self_ms[0, s])} to {ms(nodes.self_ms[1, s])} per request"
        )
        asked = Question("self_time_ms", blamer.picture.periods, suspect.name)
        text = f"{text} ({speed / max(noise, 1e-9):.0f} standard errors)"
        found.append(Evidence("self_time", text, _both(nodes.self_ms[:, s]), asked.query))
    before, after = float(nodes.origin[0, s]), float(nodes.origin[1, s])
    if suspect.errors and after > before:
        text = f"errors that began in {suspect.name} rose from {percent(before)} to {percent(after)} of its requests"
        asked = Question("errors_begun", blamer.picture.periods, suspect.name)
        found.append(Evidence("error_origin", text, _both(nodes.origin[:, s]), asked.query))
    return found


def _both(pair: Sequence[float] | Floats) -> Numbers:
    return ("before", float(pair[0])), ("after", float(pair[1]))


def _edges(suspect: Suspect, blamer: Blamer) -> list[Evidence]:
    """Sentences on the edges that the suspect is to blame for, the longest first."""
    picture = blamer.picture
    edges = picture.edges
    mine = np.flatnonzero(blamer.owner == suspect.node)
    grown = [i for i in mine.tolist() if edges.edge_change_ms[i] > 4 * edges.edge_error_ms[i]]
    found = []
    for i in sorted(grown, key=lambda i: (-edges.edge_change_ms[i], i))[:3]:
        per_call = edges.edge_ms[:, i] / np.maximum(edges.calls[:, i], 1e-9)
        caller, callee = picture.name(int(edges.caller[i])), picture.name(int(edges.callee[i]))
        what = "calls" if int(edges.callee[i]) >= len(picture.services) else "the way of calls"
        text = f"{what} from {caller} to {callee} took {ms(per_call[0])} before, {ms(per_call[1])} after"
        asked = Question("edge_time_ms", picture.periods, caller, callee)
        found.append(Evidence("edge_time", text, _both(per_call), asked.query))
    for i in mine.tolist():
        if suspect.errors and edges.errors[1, i] > edges.errors[0, i] + 0.01 * edges.calls[1, i]:
            caller, callee = picture.name(int(edges.caller[i])), picture.name(int(edges.callee[i]))
            ratio = edges.errors[:, i] / np.maximum(edges.calls[:, i], 1e-9)
            text = f"errors of calls from {caller} to {callee} rose from {percent(ratio[0])} to {percent(ratio[1])}"
            numbers = _both(ratio)
            if blamer.lost[i]:
                lost = min(float(edges.lost[1, i]) / max(float(edges.errors[1, i]), 1e-9), 1.0)
                text = f"{text}, {percent(lost)} of them without a trace of it in {callee}"
                numbers = (*numbers, ("lost", lost))
            asked = Question("call_errors", picture.periods, caller, callee)
            found.append(Evidence("error_origin", text, numbers, asked.query))
    return found


def _structure(suspect: Suspect, blamer: Blamer) -> list[Evidence]:
    """Calls that the suspect makes more often per request than before; fewer, where its requests fail."""
    picture = blamer.picture
    edges = picture.edges
    mine = np.flatnonzero(edges.caller == suspect.node)
    before, after = edges.calls[:, mine]
    moved = (after > MORE * before + SOME) | ((after < before / MORE - SOME) & suspect.errors)
    found = []
    for i in sorted(mine[moved].tolist(), key=lambda i: (-abs(edges.calls_change_ms[i]), i))[:2]:
        callee, pair = picture.name(int(edges.callee[i])), edges.calls[:, i]
        verb = "rose" if pair[1] > pair[0] else "fell"
        text = f"calls from {suspect.name} to {callee} {verb} from {pair[0]:.2f} to {pair[1]:.2f} per request"
        asked = Question("calls_per_request", picture.periods, suspect.name, callee)
        found.append(Evidence("structure", text, _both(pair), asked.query))
    for i in np.flatnonzero(remixed(picture) & (edges.caller == suspect.node)).tolist():
        more, callee = float(edges.calls_change_ms[i]), picture.name(int(edges.callee[i]))
        text = f"{suspect.name} calls slower operations of {callee} more often: {ms(more)} more per request"
        found.append(Evidence("mix", text, (("more", more),)))
    return found


def _accounts(suspect: Suspect, members: Sequence[Symptom], blamer: Blamer, folded: frozenset[int]) -> list[Evidence]:
    """How much of each symptom's change the suspect accounts for."""
    found = []
    for member in sorted(members, key=lambda m: (-m.weight, m.onset_ns, m.service))[:2]:
        share = float(blamer.blame(member)[sorted({suspect.node, *folded})].sum())
        if share < 0.01 or member.service == suspect.node:
            continue
        where = blamer.picture.name(member.service)
        if member.aspect == "latency":
            change = float(blamer.picture.nodes.duration_change_ms[member.service])
            text = f"accounts for {percent(share)} of the {ms(change)} by which requests of {where} changed on average"
            found.append(Evidence("attribution", text, (("share", share), ("change", change))))
        if member.aspect == "errors":
            text = f"{percent(share)} of the new errors of {where} began here"
            found.append(Evidence("attribution", text, (("share", share),)))
    return found


def _place(place: Place, suspect: Suspect, when: Periods) -> list[Evidence]:
    found = [] if place.train is None else _train(place.train, when)
    if place.released is not None:
        found.append(_release(suspect.name, place.released, when))
    if place.gone is not None:
        gone = place.gone
        text = (
            f"instance {gone.name} served {gone.before:.1f} requests per second before and hardly any since; the"
            f" others {gone.others_before:.1f} and {gone.others_after:.1f}"
        )
        asked = Question("instance_requests_per_s", when, suspect.name, values=(gone.name,))
        rates = {"others_before": gone.others_before, "others_after": gone.others_after}
        found.append(Evidence("contrast", text, (("before", gone.before), *rates.items()), asked.query))
    found += [_contrast(c, suspect, when) for c in _told_apart(place.contrasts)]
    if place.device is not None:
        found += _device(place.device, when)
    return found


def _short(hw_id: str) -> str:
    """A GPU's id as far as people compare it.

    >>> _short("GPU-328a8fe4-af4a-5a2d-a7b4-4a0b53af8754"), _short("GPU-7d1c")
    ('GPU-328a8fe4…', 'GPU-7d1c')
    """
    return hw_id if len(hw_id) <= LONG_ID else f"{hw_id[:12]}…"


def _train(train: Train, when: Periods) -> list[Evidence]:
    first = min(release.first_seen_ns for _, release in train.releases)
    within_s = (max(release.first_seen_ns for _, release in train.releases) - first) / 1e9
    count, well = len(train.releases), len(train.unharmed)
    came = "at once" if within_s == 0 else f"within {within_s:.0f} s"
    text = f"{count} services got a new version {came}, and each is worse than with the one before"
    if well:
        others = ", ".join(train.unharmed[:MAX_NAMES]) + (f" and {well - MAX_NAMES} more" if well > MAX_NAMES else "")
        text += f"; not so {others}, which got it too"
    numbers = ("services", float(count)), ("within_s", within_s), ("unharmed", float(well))
    each = [_release(service, release, when) for service, release in train.releases[:MAX_NAMES]]
    each = [replace(e, text=f"{s}: {e.text}") for (s, _), e in zip(train.releases, each, strict=False)]
    return [Evidence("version", text, numbers), *each]


def _release(service: str, new: Release, when: Periods) -> Evidence:
    more = f"{percent(new.excess)} more errors" if new.unit == "1" else f"{ms(new.excess)} more time"
    text = (
        f"version {new.name} arrived with the trouble: {more} per request than the version before it, over"
        f" {new.requests:.0f} requests"
    )
    asked = Question("release_errors" if new.unit == "1" else "release_ms", when, service, values=(new.name,))
    return Evidence("version", text, (("excess", new.excess), ("requests", new.requests)), asked.query)


def _device(device: Finding, when: Periods) -> list[Evidence]:
    name = _short(device.hw_id) or device.instance or device.host
    on = f" on {device.host}" if device.host and device.host != name else ""
    found = []
    for said in device.readings:
        asked = Question(
            "metric", when, metric=said.metric, hw_id=said.hw_id, host=said.host, instance=said.instance,
            labels=said.labels,
        )  # fmt: skip
        found.append(Evidence("resource", f"{name}{on}: {said.text}", said.numbers, asked.query))
    return found


def _told_apart(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """Those that say something new: an instance that has its host to itself is told once."""
    found: dict[tuple[float, ...], Contrast] = {}
    for one in contrasts:
        found.setdefault(tuple(sorted(v.excess * v.requests for v in one.carriers)), one)
    return list(found.values())


def _contrast(contrast: Contrast, suspect: Suspect, when: Periods) -> Evidence:
    say = percent if contrast.unit == "1" else ms
    carriers = ", ".join(v.name for v in contrast.carriers[:3])
    count = sum(v.requests for v in contrast.carriers)
    rest = sum(v.requests for v in contrast.others)
    high = sum(v.excess * v.requests for v in contrast.carriers) / count
    low = sum(v.excess * v.requests for v in contrast.others) / rest
    what = "errors" if contrast.unit == "1" else "time"
    text = (
        f"{contrast.dimension} {carriers}: {say(high)} more {what} per request than before over {count:.0f} requests; "
        f"the others {say(abs(low))} {'less' if low < 0 else 'more'} over {rest:.0f}"
    )
    asked = Question(
        "excess_errors" if contrast.unit == "1" else "excess_ms", when, suspect.name,
        dimension=contrast.dimension, values=tuple(v.name for v in contrast.carriers),
    )  # fmt: skip
    return Evidence("contrast", text, (("named", high), ("others", low)), asked.query)


def _order(suspect: Suspect) -> list[Evidence]:
    found = []
    if suspect.onset_ns is not None:
        late = (suspect.onset_ns - suspect.symptom_onset_ns) / 1e9
        when = "with the symptom" if late == 0 else f"{abs(late):.0f} s {'after' if late > 0 else 'before'} the symptom"
        found.append(Evidence("order", f"{suspect.name} moved {when}", (("late_s", late),)))
    if suspect.correlation is not None:
        text = f"its window series goes with the symptom's: r = {suspect.correlation:.2f}"
        found.append(Evidence("correlation", text, (("r", suspect.correlation),)))
    return found


def ruled_out(
    members: Sequence[Symptom],
    named: Sequence[Suspect],
    others: Sequence[Suspect],
    blamer: Blamer,
    folded: frozenset[int] = frozenset(),
) -> tuple[RuledOut, ...]:
    """Services that show a symptom, and suspects that were dropped, with the number that speaks for them; `folded` ones
    are part of a cause that is named."""
    picture = blamer.picture
    blamed = {s.node for s in named}
    candidates = {m.service for m in members} | {s.node for s in others if s.node < len(picture.services)}
    late = {s.node: s for s in others if s.onset_ns is not None and s.onset_ns - s.symptom_onset_ns >= 30 * 10**9}
    found = []
    lasted = max(picture.periods.before_s, 1.0), max(picture.periods.after_s, 1.0)
    for node in sorted(candidates - blamed - folded):
        nodes = picture.nodes
        before, after = float(nodes.self_ms[0, node]), float(nodes.self_ms[1, node])
        numbers, query = _both((before, after)), Question("self_time_ms", picture.periods, picture.name(node)).query
        if node in late:
            seconds = (int(late[node].onset_ns or 0) - late[node].symptom_onset_ns) / 1e9
            because = f"it moved {seconds:.0f} s after the symptom"
            numbers, query = (("late_s", seconds),), ""
        elif blamer.outside in blamed and after > before:
            # More requests strain all; each of them by itself is not why.
            ratio = float((nodes.requests[1, node] / lasted[1]) / max(nodes.requests[0, node] / lasted[0], 1e-9))
            because = (
                f"its self time went from {ms(before)} to {ms(after)} per request with {ratio:.1f} times the requests"
            )
        elif abs(after - before) <= max(0.1 * before, 3 * float(nodes.speed_error_ms[node])):
            because = f"its self time stayed at {ms(after)} per request"
        else:
            because = (
                f"its self time went from {ms(before)} to {ms(after)} per request, which is not what moved the symptom"
            )
        found.append(RuledOut(picture.name(node), "", because, numbers, query))
    return tuple(found)


def unknown(best: float) -> Evidence:
    """Why no cause is named."""
    text = f"the best explanation reaches a confidence of {best:.2f} only"
    return Evidence("unknown", text, (("confidence", best),))
