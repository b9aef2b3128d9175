"""The rules that turn a listing of a drop folder into sets, without input or output.

A set has one of four forms: a sidecar that names files; files with one stem; a folder; a loose machine image
beside a kernel and a ramdisk with one version. The order of arrival does not matter. Nothing ambiguous is
guessed: it is refused with the reason.
"""
