"""The embedded test cloud: S3 and EC2 on loopback, as strict as the real servers.

It shares no code with `bundle` and `cloud`, on purpose: what those rooms write and say is judged here by a
second reading of the same rules (with the standard library's tarfile, zlib and hashlib), so that one
mistake cannot hide on both sides.

What it checks

- Every request: the path, the signature (EC2 V2 and V4, S3 V2 and V4) and the clock behind it, every
  parameter and every query key by name, sizes.
- Every upload: Content-Length, Content-MD5 where such a server does, the signed hash of the payload, canned
  ACL, names, ownership, room.
- Every registration: the manifest byte by byte (encoding, elements and their order, attributes, marks, names,
  numbers, the signature over the raw text); that key and IV open under the cloud's key *and* the user's; that
  kernel and ramdisk exist and are what they are said to be; and then the bundle itself: each part where the
  manifest says and with its digest, sizes, padding, one gzip member, one tar member, size and digest of the
  tar, and whether the bytes inside could boot in their role.
- Every start of an instance: that manifest and parts still are what was registered.

What can be made to go wrong besides, for the sake of tests, is listed in `faults`.

What it does not check

- It starts no machines: an instance is a row in a table.
- It has one account, so sharing is recorded and nobody can make use of it.
- It does not look at habits of a writer that no server looks at (mode and time stamps in the tar or gzip
  header), reads no file systems, and cannot tell a kernel that boots from one that merely has its magic.
- As `sandbox` it is none of the generations: what only some servers refuse, it mostly takes. Otherwise it
  plays one of them, each rule as strict as the strictest version of it had it, and its folder stays with it.
  The tables are in `rules`.
- Nothing is flushed to disk beyond what the system does by itself: it survives its own end, not a power cut.
"""
