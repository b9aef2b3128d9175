"""Published sets: the names of boot files contain the name of their image and a word for their role.

Ubuntu's are called X.img, X-vmlinuz-virtual and X-initrd-virtual, later X-disk1.img and X-vmlinuz-generic;
cirros' X-blank.img, X-vmlinuz and X-initrd; others' X.img, vmlinuz-X and initrd-X.img.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from uecwatchd.images import file_names
from uecwatchd.images.file_facts import Facts
from uecwatchd.images.suitability import COMPRESSORS
from uecwatchd.intake.spool.scan import Listing
from uecwatchd.types import Role

# Words after the common name of an image and its kernel, if there are several images of one system.
_KIND_OF_IMAGE = re.compile(r"[-_.](blank|disk\d*|uefi\d*|root|rootfs|image)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class BootFileIndex:
    """Sets with an image or a sidecar, by folded name.

    `kinds` has those whose name is the name of a system followed by a kind, by the name of the system.
    """

    names: Mapping[str, Collection[str]]
    kinds: Mapping[str, Collection[str]]

    def sets_of(self, name: str) -> tuple[Collection[str], bool]:
        """Return the sets that a boot file is for by its name, and True if it is only lent.

        A lent file is for all images of one system, which may also do without it.
        """
        stems = [file_names.fold_name(stem) for stem in file_names.stems_by_name(name)]
        if own := next((self.names[stem] for stem in stems if stem in self.names), None):
            return own, False
        return next((self.kinds[stem] for stem in stems if stem in self.kinds), ()), True


def images_of(names: Iterable[str]) -> BootFileIndex:
    folded: dict[str, list[str]] = {}
    kinds: dict[str, list[str]] = {}
    for name in sorted(names):
        folded.setdefault(file_names.fold_name(name), []).append(name)
        if (base := _KIND_OF_IMAGE.sub("", name)) != name:
            kinds.setdefault(file_names.fold_name(base), []).append(name)
    return BootFileIndex(folded, kinds)


def boot_files(listing: Listing, paths: Iterable[str]) -> list[str]:
    """Return the files that may be a published kernel or ramdisk.

    A name alone is not enough, because logs and signatures have such names too, unless the content is
    unreadable.
    """
    return [path for path in paths if not file_names.is_spare(path) and _boot_role(listing, path)]


def _boot_role(listing: Listing, path: str) -> Role | None:
    content, named = listing.facts.get(path), file_names.role_by_name(path)
    if content is None or not file_names.stems_by_name(path) or file_names.is_loader(path):
        return None
    role = named
    if isinstance(content, Facts) and (content.role or content.format not in COMPRESSORS):
        role = content.role
    return role if role in ("kernel", "ramdisk") else None
