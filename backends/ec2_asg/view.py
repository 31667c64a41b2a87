"""Group, instances and record → what is seen of each worker. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from backends.base import RefusalKind, Seen, WorkerPhase, clipped
from backends.ec2_asg import states
from backends.ec2_asg.group import INDEX, SUBMISSION, Group, Instance, Member, Trouble
from backends.ec2_asg.roster import Place, Roster

SHOWN_MS = 600_000  # how long a place to which no instance comes is shown as over
SKEW_MS = 60_000
_BEFORE_ITS_START = (WorkerPhase.PENDING, WorkerPhase.STARTING)
_DEAD = ("shutting-down", "terminated")


def fresh(group: Group, instances: Iterable[Instance], roster: Roster) -> list[str]:
    """Instances that are workers and that nobody has seen before, oldest first. One that died before it was seen is
    one too, if it can have been launched for a place that waits."""
    waiting = [roster.orders[place.submission].at for place in roster.waiting()]
    known = {one.id: one for one in instances}
    members = {member.id for member in group.members}
    found = [member.id for member in group.members if not member.in_store]
    if waiting and not group.warm_pool:
        since = min(waiting) - SKEW_MS
        found += [one.id for one in known.values() if one.id not in members and _died_since(one, since, group.name)]
    age = {name: known[name].launched_at if name in known else 2**62 for name in found}
    return sorted((name for name in found if not roster.knows(name)), key=lambda name: (age[name], name))


def _died_since(one: Instance, since: int, group: str) -> bool:
    return one.state in _DEAD and one.launched_at >= since and one.group == group


def awaited(group: Group, roster: Roster) -> list[Place]:
    """Places that the group has yet to fill: no more than it still wants instances."""
    return roster.waiting()[: group.outstanding]


class View:
    def __init__(self, group: Group, instances: Iterable[Instance], roster: Roster, now: int) -> None:
        self._group = group
        self._members = {member.id: member for member in group.members if not member.in_store}
        self._instances = {one.id: one for one in instances}
        self._roster = roster
        self._now = now

    @property
    def shown(self) -> set[str]:
        """Instances that the platform shows in any way."""
        return {member.id for member in self._group.members} | set(self._instances)

    def seen(self, trouble: Trouble | None, role: str) -> tuple[Seen, ...]:
        """`role`: of the instances, as far as it is known."""
        here = (*self._with_instance(), *self._strays())
        named = (replace(one, identity=self._identity(one.handle, role)) for one in here)
        return (*named, *self._without(trouble))

    def _with_instance(self) -> Iterable[Seen]:
        for order in self._roster.orders.values():
            for index, instance in order.instances.items():
                if one := self._look(Place(order.id, index), instance):
                    yield one

    def _without(self, trouble: Trouble | None) -> Iterable[Seen]:
        for place in awaited(self._group, self._roster):
            pending = Seen(
                place.submission, place.index, place.worker, WorkerPhase.PENDING, detail="waits for a machine"
            )
            if trouble and trouble.at >= self._roster.orders[place.submission].at - SKEW_MS:
                pending = replace(pending, refusal=states.reason_kind(trouble.text), detail=trouble.text)
            yield pending
        for order in self._roster.orders.values():
            for index, (kind, text, since) in order.over.items():
                if text and self._now - since < SHOWN_MS and order.sure:
                    place = Place(order.id, index)
                    refusal = RefusalKind(kind) if kind else None
                    yield Seen(order.id, index, place.worker, WorkerPhase.ENDED, refusal=refusal, detail=text)

    def _strays(self) -> Iterable[Seen]:
        """Nobody asked for them; they cost all the same."""
        for instance in sorted(self._roster.strays):
            one = self._look(Place(instance, 0), instance)
            if one and one.phase is not WorkerPhase.ENDED:
                yield replace(one, detail=clipped(f"nobody asked for this instance; {one.detail}"))

    def _look(self, place: Place, instance: str) -> Seen | None:
        member, machine = self._members.get(instance), self._instances.get(instance)
        phase = _phase(member, machine)
        if phase is None:
            return None
        started = machine.launched_at if machine and phase not in _BEFORE_ITS_START else None
        words = [member.state if member else "not in the group", machine.state if machine else "", _words(machine)]
        return Seen(
            place.submission,
            place.index,
            instance,
            phase,
            started_at=started or None,
            refusal=states.reason_kind(machine.reason) if machine else None,
            detail=clipped(", ".join(filter(None, words))),
        )

    def _identity(self, instance: str, role: str) -> str:
        """As whom AWS vouches for it: see `backends.base.Seen`."""
        return ":".join(filter(None, ("aws", self._group.account, role, instance)))


def _phase(member: Member | None, machine: Instance | None) -> WorkerPhase | None:
    if machine and (member is None or machine.state == "terminated"):
        return states.instance_phase(machine.state)
    return states.lifecycle_phase(member.state) if member else None


def _words(machine: Instance | None) -> str:
    return machine.reason if machine else ""


def tags_due(roster: Roster, there: Sequence[str] | set[str]) -> list[tuple[Mapping[str, str], list[Place]]]:
    """Tags that instances shall get, as few calls as it takes: one for each submission, one for each number."""
    by_name: dict[str, list[Place]] = {}
    by_index: dict[int, list[Place]] = {}
    due: list[tuple[Mapping[str, str], list[Place]]] = []
    for order in roster.orders.values():
        new = [Place(order.id, at) for at, one in order.instances.items() if at not in order.tagged and one in there]
        if len(new) == 1:
            due.append((_tags(order.id) | _tags(index=new[0].index), new))
        else:
            for place in new:
                by_name.setdefault(order.id, []).append(place)
                by_index.setdefault(place.index, []).append(place)
    due += [(_tags(name), places) for name, places in by_name.items()]
    due += [(_tags(index=index), places) for index, places in by_index.items()]
    return due


def _tags(name: str = "", index: int | None = None) -> dict[str, str]:
    return ({SUBMISSION: name} if name else {}) | ({} if index is None else {INDEX: str(index)})
