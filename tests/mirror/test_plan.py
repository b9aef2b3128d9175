"""Rules for the two sides of a mirrored folder: after any history both agree, and nothing is lost."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from uecwatchd.mirror.plan import FileIdentity, MirrorPlan, MirrorSides, Noted, names_of, plan_mirror
from uecwatchd.types import StoredObject

NOBODYS = FileIdentity(99, 9, 9)


def stored(name: str, etag: str = "e1", size: int = 1) -> StoredObject:
    return StoredObject(name, size, etag)


def noted(etag: str = "e1", size: int = 1, *, is_placed: bool = True) -> Noted:
    return Noted(etag, size, FileIdentity(1, size, 1), is_placed)


HERE = noted().file
OLD = FileIdentity(2, 2, 2)


def replacing() -> Noted:
    """Return the note of a process that was killed before its new file took the place of an old one."""
    return replace(noted(is_placed=False), replaces=OLD)


@pytest.mark.parametrize(
    ("there", "file", "note", "expected"),
    [
        (stored("a"), None, None, MirrorPlan(fetch=("a",))),
        (stored("a"), HERE, noted(), MirrorPlan()),
        (stored("a", "e2"), HERE, noted(), MirrorPlan(fetch=("a",))),
        (stored("a", size=2), HERE, noted(), MirrorPlan(fetch=("a",))),
        (stored("a"), NOBODYS, noted(), MirrorPlan()),
        (stored("a", "e2"), NOBODYS, noted(), MirrorPlan(foreign=("a",))),
        (stored("a"), NOBODYS, None, MirrorPlan(foreign=("a",))),
        (None, HERE, noted(), MirrorPlan(remove_files=("a",))),
        (None, NOBODYS, noted(), MirrorPlan(forget=("a",))),
        (None, None, noted(), MirrorPlan(forget=("a",))),
        (None, NOBODYS, None, MirrorPlan()),
        (stored("a"), HERE, noted(is_placed=False), MirrorPlan(confirm=("a",))),
        (stored("a"), None, noted(is_placed=False), MirrorPlan(fetch=("a",))),
        (stored("a"), OLD, replacing(), MirrorPlan(fetch=("a",))),
        (stored("a", "e2"), OLD, replacing(), MirrorPlan(fetch=("a",))),
        (stored("a"), HERE, replacing(), MirrorPlan(confirm=("a",))),
        (stored("a"), NOBODYS, replacing(), MirrorPlan(foreign=("a",))),
        (None, OLD, replacing(), MirrorPlan(remove_files=("a",))),
        (stored("a"), NOBODYS, noted(is_placed=False), MirrorPlan(foreign=("a",))),
    ],
)
def test_each_state_of_a_dropped_file_has_its_action(
    there: StoredObject | None,
    file: FileIdentity | None,
    note: Noted | None,
    expected: MirrorPlan,
) -> None:
    for leave in (False, True):
        assert plan_of("a", there, file, note, leave=leave) == expected


def test_a_file_that_left_takes_its_object_along_only_if_it_may() -> None:
    assert plan_of("a", stored("a"), None, noted(), leave=True) == MirrorPlan(remove_objects=("a",))
    assert plan_of("a", stored("a"), None, noted(), leave=False) == MirrorPlan(fetch=("a",))


@pytest.mark.parametrize(
    ("there", "file", "note", "expected"),
    [
        (None, HERE, None, MirrorPlan(send=("a.emi",))),
        (stored("a.emi"), HERE, noted(), MirrorPlan()),
        (stored("a.emi", "e2"), HERE, noted(), MirrorPlan(send=("a.emi",))),
        (None, HERE, noted(), MirrorPlan(send=("a.emi",))),
        (stored("a.emi"), NOBODYS, noted(), MirrorPlan(send=("a.emi",))),
        (stored("a.emi"), None, noted(), MirrorPlan(remove_objects=("a.emi",))),
        (stored("a.emi", "e2"), None, noted(), MirrorPlan(forget=("a.emi",))),
        (None, None, noted(), MirrorPlan(forget=("a.emi",))),
        (stored("a.emi"), None, None, MirrorPlan()),
    ],
)
def test_each_state_of_a_result_has_its_action(
    there: StoredObject | None, file: FileIdentity | None, note: Noted | None, expected: MirrorPlan
) -> None:
    assert plan_of("a.emi", there, file, note, leave=False) == expected


def plan_of(
    name: str, there: StoredObject | None, file: FileIdentity | None, note: Noted | None, *, leave: bool
) -> MirrorPlan:
    def one(value: Any) -> dict[str, Any]:
        return {} if value is None else {name: value}

    return plan_mirror(MirrorSides(one(there), one(file), one(note)), removed_files_leave=leave)


def test_small_objects_come_first_and_unfinished_ones_not_at_all() -> None:
    objects = {
        "karmic.img": stored("karmic.img", size=9),
        "karmic.toml": stored("karmic.toml", size=1),
        "karmic.img.part": stored("karmic.img.part"),
    }
    sides = MirrorSides(objects, {}, {}, lambda name: name.endswith(".part"))
    assert plan_mirror(sides, removed_files_leave=False).fetch == ("karmic.toml", "karmic.img")


def test_names_are_the_rest_of_the_keys() -> None:
    keys = ("in/", "in/a.img", "in/deep/b.img", "in/.hidden", f"in/{'x' * 201}", "in/ü", "in/\udc80")
    named, others = names_of((stored(key) for key in keys), "in/")
    assert list(named) == ["a.img", "ü"]
    assert others == 4
    assert named["a.img"].key == "in/a.img"


# --- any history ------------------------------------------------------------------------------------------


@dataclass
class World:
    """A bucket and a folder in memory, on which plans are carried out."""

    leave: bool
    objects: dict[str, StoredObject] = field(default_factory=dict)
    files: dict[str, FileIdentity] = field(default_factory=dict)
    notes: dict[str, Noted] = field(default_factory=dict)
    clock: int = 0
    processed: set[str] = field(default_factory=set)  # etags of objects whose file was in the folder
    contents: dict[FileIdentity, str] = field(default_factory=dict)  # etags of fetched files

    def identity(self) -> FileIdentity:
        self.clock += 1
        return FileIdentity(self.clock, 1, self.clock)

    def look(self, *, dies_after: int) -> None:
        """Carry out a plan; the process dies after so many steps."""
        sides = MirrorSides(dict(self.objects), dict(self.files), dict(self.notes))
        plan = plan_mirror(sides, removed_files_leave=self.leave)
        steps = [step for action in self.steps(plan) for step in action]
        for step in steps[:dies_after]:
            step()

    def steps(self, plan: MirrorPlan) -> list[list[Any]]:
        def note(name: str, value: Noted | None) -> Any:
            return lambda: self.notes.pop(name, None) if value is None else self.notes.update({name: value})

        made: list[list[Any]] = [
            [note(n, replace(self.notes[n], is_placed=True, replaces=None))] for n in plan.confirm
        ]
        made += [[lambda n=n: self.files.pop(n), note(n, None)] for n in plan.remove_files]
        made += [[lambda n=n: self.remove_object(n), note(n, None)] for n in plan.remove_objects]
        made += [[note(n, None)] for n in plan.forget]
        for name in plan.send:
            etag = f"sent{self.files[name]}"
            made.append([lambda n=name, e=etag: self.objects.update({n: stored(n, e)})])
            made[-1].append(note(name, Noted(etag, 1, self.files[name])))
        for name in plan.fetch:
            there, new = self.objects[name], self.identity()
            first = Noted(there.etag, there.size, new, is_placed=False, replaces=self.files.get(name))
            placed = [note(name, first), lambda n=name, i=new, e=there.etag: self.place(n, i, e)]
            made.append([*placed, note(name, replace(first, is_placed=True, replaces=None))])
        return made

    def place(self, name: str, identity: FileIdentity, etag: str) -> None:
        self.files[name] = identity
        self.processed.add(etag)
        self.contents[identity] = etag

    def remove_object(self, name: str) -> None:
        etag = self.objects.pop(name).etag
        assert etag in self.processed or name.endswith(".emi"), "an object was removed that nobody has had"


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["put", "remove object", "leave", "drop here", "result", "look"]),
        st.sampled_from(["a", "b", "a.emi"]),
        st.integers(0, 6),
    ),
    max_size=30,
)


UPDATE_KILLED = [("put", "a", 0), ("look", "a", 6), ("put", "a", 0), ("look", "a", 1)]


@given(events=EVENTS, leave=st.booleans())
@example(events=UPDATE_KILLED, leave=False)
def test_after_any_history_both_sides_agree_and_no_unseen_object_is_removed(
    *, events: list[tuple[str, str, int]], leave: bool
) -> None:
    world = World(leave)
    own: dict[str, FileIdentity] = {}
    for number, (what, name, dies_after) in enumerate(events):
        is_result = name.endswith(".emi")
        if what == "put" and not is_result:
            world.objects[name] = stored(name, f"e{number}")
        elif what == "remove object" and not is_result:
            world.objects.pop(name, None)
        elif what == "leave":
            world.files.pop(name, None)
        elif what == "drop here" and not is_result:
            own[name] = world.files[name] = world.identity()
        elif what == "result" and is_result:
            world.files[name] = world.identity()
        else:
            world.look(dies_after=dies_after)
    for _ in range(3):
        world.look(dies_after=1000)
    plan = plan_mirror(MirrorSides(world.objects, world.files, world.notes), removed_files_leave=leave)
    assert plan == MirrorPlan(foreign=plan.foreign), "a look changes nothing any more"
    for name in plan.foreign:
        assert world.files[name] == own[name], "only what somebody has put here is in the way"
    for name in world.objects.keys() & world.files.keys():
        content = world.contents.get(world.files[name], world.objects[name].etag)
        assert content == world.objects[name].etag or name.endswith(".emi"), "an update is missing"
