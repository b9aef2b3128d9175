"""Sets without files, and the proof that their owner has removed them.

A folder can also look empty because a file system was unmounted, a file server lost its disk, or another
folder is mounted there. An image is not taken out of a cloud for that. The proof is our own report beside the
files, `NAME.uec.json`: it goes with the folder, and members of a folder with the sticky bit cannot remove it.
"""

from pathlib import PurePosixPath

from uecwatchd.intake.spool.output_files import output_stem
from uecwatchd.intake.spool.scan import Listing
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.standing import by_cloud
from uecwatchd.service.policy import GONE


def is_removed_by_owner(record: SetRecord, listing: Listing) -> bool:
    """Tell if a published set has just lost all its files, in a folder that is certainly the same one."""
    done = (one for one in by_cloud(record) if one.state == "done")
    is_published = any(image.image_id for one in done for image in one.target.images)
    return is_published and record.reason != GONE and are_files_removed(record, listing)


def are_files_removed(record: SetRecord, listing: Listing) -> bool:
    """Tell if none of a set's files is there, under any of its names, and its report still is.

    A folder with more names than can be listed proves nothing, and the folder of a set has to be gone too.
    """
    report = f"{output_stem(record.name)}.uec.json"
    is_same_folder = report in listing.ignored and report not in listing.planted
    if not is_same_folder or listing.left_out or not record.members:
        return False
    there = listing.entries.keys() | listing.boot_files.keys() | listing.ignored.keys()
    paths = (PurePosixPath(member.path) for member in record.members)
    names = {str(part) for path in paths for part in (path, *path.parents)}
    return not names & there
