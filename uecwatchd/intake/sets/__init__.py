"""The rules that turn a listing of a drop folder into sets. Rules without input or output.

A set arrives in one of four forms: a sidecar naming files; files of one stem; a folder; or a loose machine
image beside a kernel and a ramdisk of one version.
The order of arrival never matters, and nothing ambiguous is guessed: it is refused with the reason.
"""
