"""An older image that is used again, on the embedded cloud."""

import json
from contextlib import closing

from tests.support.daemon import daemon_process, stop_daemon
from tests.support.host import Host
from tests.support.published_sets import (
    drop,
    images,
    publish,
    publish_several,
    retain,
    row,
    states,
    tags,
)
from tests.support.site_programs import make_program
from uecwatchd.demo.material import RealSet
from uecwatchd.ledger.records import Request
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.types import SetId

HVM = 'virtualization = "hvm"\nconvert = "keep"\n'


def ids(host: Host, name: str = "karmic") -> dict[str, str]:
    found = {ending: host.spool / f"{name}.{ending}" for ending in ("emi", "eki", "eri", "latest")}
    return {ending: path.read_text().strip() for ending, path in found.items() if path.exists()}


def test_the_image_before_is_used_again_and_the_set_is_held(host: Host) -> None:
    retain(host, "keep = 3")
    first, second, third = publish_several(host, 3)
    data, talk = host.ask("rollback", "karmic", "--yes")
    assert data == f"{second}\n"
    assert f"karmic: {second} is in use again on cloud default, instead of {third}" in talk
    assert ids(host) == {"emi": second, "latest": second}
    assert states(host) == {first: "older", second: "current", third: "older"}
    assert [tags(host, one).get("latest") for one in (first, second, third)] == [None, "karmic", None]
    assert host.report("karmic")["ids"]["machine"] == second
    assert row(host)["state"] == "held"
    assert images(host) == sorted((first, second, third))
    host.ask("once")
    assert ids(host)["emi"] == second, "it is not published again"


def test_going_back_twice_goes_back_two_images(host: Host) -> None:
    first, second, _ = publish_several(host, 3)
    assert host.ask("rollback", "karmic", "--yes")[0] == f"{second}\n"
    assert host.ask("rollback", "karmic", "--yes")[0] == f"{first}\n"
    _, talk = host.ask("rollback", "karmic", "--yes", code=65)
    assert "there is no older image of it that could be used" in talk


def test_the_next_image_is_published_once_the_set_is_released(host: Host) -> None:
    _, second = publish_several(host, 2)
    host.ask("rollback", "karmic", "--yes")
    drop(host, seed=7)
    host.ask("once")
    host.ask("release", "karmic")
    host.ask("once")
    newest = ids(host)["emi"]
    assert newest not in ("", second)
    assert states(host)[newest] == "current"


def test_a_repeated_request_goes_back_no_further(host: Host) -> None:
    first, second, third = publish_several(host, 3)
    host.ask("rollback", "karmic", "--yes")
    with closing(open_ledger(host.state)) as book:
        set_id = SetId(str(host.spool), "karmic")
        book.put_request(Request(set_id, "rollback", cloud="default", image_id=second))
    host.ask("once")
    assert states(host) == {first: "older", second: "current", third: "older"}


def test_an_image_that_was_gone_back_from_is_neither_kept_nor_used_again(host: Host) -> None:
    first, second = publish_several(host, 2)
    host.ask("rollback", "karmic", "--yes")
    retain(host, "keep = 2")
    drop(host, seed=7)
    assert "karmic is held" in host.ask("prune", "--dry-run")[0]
    host.ask("once")
    assert images(host) == sorted((first, second)), "a set that is held keeps all of its images"
    host.ask("release", "karmic")
    host.ask("once")
    newest = ids(host)["emi"]
    assert images(host) == sorted((first, newest))
    assert host.ask("rollback", "karmic", "--yes")[0] == f"{first}\n"


def test_kernel_and_ramdisk_go_back_with_their_machine(host: Host, small_set: RealSet) -> None:
    host.drop_set(small_set)
    host.ask("once")
    before = ids(host)
    with (host.spool / "karmic.initrd").open("ab") as ramdisk:
        ramdisk.write(bytes(512))
    host.ask("once")
    assert ids(host)["eri"] != before["eri"]
    host.ask("rollback", "karmic", "--yes")
    assert ids(host) == before


def test_an_image_that_was_removed_by_hand_is_passed_over(host: Host) -> None:
    first, second, _ = publish_several(host, 3)
    host.cloud.backend.registry.remove_image(second)
    assert host.ask("rollback", "karmic", "--yes")[0] == f"{first}\n"


def test_a_set_with_one_image_cannot_go_back(host: Host) -> None:
    image_id = publish(host)
    _, talk = host.ask("rollback", "karmic", "--yes", code=65)
    assert "there is no older image" in talk
    assert (ids(host)["emi"], row(host)["state"]) == (image_id, "done")


def test_a_set_that_is_not_done_cannot_go_back(host: Host) -> None:
    publish_several(host, 2)
    (host.spool / "karmic.toml").write_text("machine = 1\n")
    host.ask("once", code=65)
    _, talk = host.ask("rollback", "karmic", "--yes", code=65)
    assert "it is rejected" in talk


def test_a_set_that_was_never_attempted_cannot_go_back_and_is_not_held(host: Host) -> None:
    drop(host, sidecar="machine = 1\n")
    host.ask("once", code=65)
    _, talk = host.ask("rollback", "karmic", "--yes", code=65)
    assert "nothing was published on any cloud" in talk
    assert row(host)["state"] == "rejected"


def test_after_a_withdrawal_the_image_before_is_used(host: Host) -> None:
    first, second = publish_several(host, 2)
    host.ask("withdraw", "karmic", "--yes")
    host.ask("rollback", "karmic", "--yes")
    assert ids(host) == {"emi": first}
    assert states(host) == {first: "current", second: "withdrawn"}
    assert host.report("karmic")["state"] == "done"


def test_a_trial_changes_nothing(host: Host) -> None:
    first, second = publish_several(host, 2)
    data, talk = host.ask("rollback", "karmic", "--dry-run", "--json")
    assert f"To be used again: {first}" in talk
    assert json.loads(data)["clouds"] == [{"cloud": "default", "from": second, "to": first}]
    assert ids(host)["emi"] == second


def test_a_script_has_to_say_yes(host: Host) -> None:
    _, second = publish_several(host, 2)
    assert host.run("rollback", "karmic").returncode == 64
    assert (ids(host)["emi"], row(host)["state"]) == (second, "done")


def test_a_running_daemon_goes_back(host: Host) -> None:
    first, _ = publish_several(host, 2)
    with daemon_process(host) as daemon:
        host.ask("rollback", "karmic", "--yes")
        assert ids(host)["emi"] == first
        stop_daemon(daemon)


def test_people_are_told_of_what_has_left_and_of_a_rollback(host: Host) -> None:
    program, told = host.folder / "notify", host.folder / "told"
    make_program(program, f'echo "$UEC_OUTCOME|$UEC_CLOUD|$UEC_EMI|$UEC_SENTENCE" >> {told}')
    retain(host, f'keep = 2\n\n[notify]\ncommand = ["{program}"]\noutcomes = ["pruned", "rolled-back"]')
    first, second, third = publish_several(host, 3)
    host.ask("rollback", "karmic", "--yes")
    what = f"karmic: 1 older image removed from cloud default by the retention: {first}"
    back = f"karmic is back at {second} on cloud default, instead of {third}; it is held"
    assert told.read_text().splitlines() == [
        f"pruned|default||{what}",
        f"rolled-back|default|{second}|{back}",
    ]


def test_on_amazon_the_newer_image_is_deprecated(amazon: Host) -> None:
    first, second, third = publish_several(amazon, 3, sidecar=HVM)
    amazon.ask("rollback", "karmic", "--yes")
    assert states(amazon) == {first: "older", second: "current", third: "deprecated"}
    assert list(amazon.cloud.backend.registry.marks.deprecations()) == [third]


def test_on_amazon_a_deprecated_image_is_restored_before_it_is_used(amazon: Host) -> None:
    retain(amazon, 'deprecate_after = "0m"')
    first, second, third = publish_several(amazon, 3, sidecar=HVM)
    assert states(amazon)[first] == "deprecated"
    amazon.ask("rollback", "karmic", "--yes")
    amazon.ask("rollback", "karmic", "--yes")
    assert states(amazon)[first] == "current"
    assert sorted(amazon.cloud.backend.registry.marks.deprecations()) == sorted((second, third))


def test_on_amazon_a_parameter_follows_the_image_in_use(amazon: Host) -> None:
    retain(amazon, "keep = 3")
    parameter = f'latest_parameter = "/images/{{name}}/latest"\nssm_url = "{amazon.cloud.url}/"\n'
    amazon.configure(amazon.config.read_text().replace("[cloud.default]\n", f"[cloud.default]\n{parameter}"))
    first, second = publish_several(amazon, 2, sidecar=HVM)

    def value() -> str:
        found = amazon.cloud.backend.parameters.find("/images/karmic/latest")
        return found.value if found else ""

    assert value() == second
    amazon.ask("rollback", "karmic", "--yes")
    assert value() == first


def test_a_parameter_that_does_not_take_the_id_keeps_no_tag_from_it_and_is_written_later(
    amazon: Host,
) -> None:
    retain(amazon, "keep = 3")
    parameter = f'latest_parameter = "/aws/{{name}}"\nssm_url = "{amazon.cloud.url}/"\n'
    amazon.configure(amazon.config.read_text().replace("[cloud.default]\n", f"[cloud.default]\n{parameter}"))
    image_id = publish(amazon, sidecar=HVM)
    log = (amazon.spool / "karmic.uec.log").read_text()
    assert "karmic: it is not marked as the latest: cloud default, writing the parameter /aws/karmic" in log
    assert tags(amazon, image_id)["latest"] == "karmic"
    assert (amazon.spool / "karmic.latest").read_text().strip() == image_id
    (remark,) = amazon.report("karmic")["remarks"]
    assert remark.startswith("it is not marked as the latest: ")
    amazon.configure(amazon.config.read_text().replace('"/aws/', '"/images/'))
    amazon.ask("once")
    assert amazon.report("karmic")["remarks"] == []
    found = amazon.cloud.backend.parameters.find("/images/karmic")
    assert found is not None
    assert found.value == image_id
    with closing(open_ledger(amazon.state)) as book:
        assert book.requests() == ()


def test_a_parameter_that_cannot_be_written_keeps_nobody_from_going_back(amazon: Host) -> None:
    retain(amazon, "keep = 3")
    parameter = f'latest_parameter = "/images/{{name}}"\nssm_url = "{amazon.cloud.url}/"\n'
    amazon.configure(amazon.config.read_text().replace("[cloud.default]\n", f"[cloud.default]\n{parameter}"))
    first, _ = publish_several(amazon, 2, sidecar=HVM)
    amazon.configure(amazon.config.read_text().replace('"/images/', '"/aws/'))
    data, talk = amazon.ask("rollback", "karmic", "--yes")
    assert data == f"{first}\n"
    assert "karmic: it is not marked as the latest: cloud default, writing the parameter /aws/" in talk
    assert ids(amazon) == {"emi": first, "latest": first}
    assert tags(amazon, first)["latest"] == "karmic"
    (remark,) = amazon.report("karmic")["remarks"]
    assert remark.startswith("it is not marked as the latest: ")
    amazon.configure(amazon.config.read_text().replace('"/aws/', '"/images/'))
    amazon.ask("once")
    assert amazon.report("karmic")["remarks"] == []
    found = amazon.cloud.backend.parameters.find("/images/karmic")
    assert found is not None
    assert found.value == first
