"""The embedded test cloud: S3 and EC2 on loopback, as strict as the real servers.

It shares no code with `bundle` and `clouds`, on purpose. It judges what they write and send by a second
reading of the same rules, with the standard library's tarfile, zlib and hashlib, so that one mistake cannot
hide on both sides.

What it checks

- Every request: the path, the signature (EC2 V2 and V4, S3 V2 and V4) and its date, each parameter and each
  query key by name, sizes.
- Every upload: Content-Length, Content-MD5 if such a server checks it, the signed hash of the payload, canned
  ACL, names, ownership, free space.
- Every registration: the manifest byte by byte (encoding, elements and their order, attributes, names,
  numbers, the signature over the raw text); that key and IV open under the cloud's key *and* the user's; that
  kernel and ramdisk exist and have their type. Then the bundle itself: each part in its place and with its
  digest, sizes, padding, one gzip member, one tar member, size and digest of the tar, and content that could
  boot in its role.
- Every start of an instance: that manifest and parts are still those that were registered.

Tests can also arm faults, such as lost answers and broken connections: `faults` lists them.

What it does not check

- It starts no machines: an instance is a row in a table.
- It has one account, so sharing is recorded and cannot be used.
- It ignores what no server looks at (mode and time stamps in the tar or gzip header), reads no file systems,
  and cannot tell a kernel that boots from one that only has the magic bytes.
- The dialect `sandbox` is none of the generations: it accepts most of what only some servers refuse. Any
  other dialect plays one generation, each rule as strict as its strictest version had it, and the folder
  stays bound to it. The tables are in `rules`.
- It flushes nothing to disk: its data survive the end of the process, not a power cut.

How it is built

    server      the cloud as one object: `Sandbox`
    router      one request, from its head to the recorded answer
    backend     all that requests are answered from
    http/       connections, signatures, answers, injected faults
    s3/, ec2/   the operations and actions of the two halves
    rules/      the tables of the generations
    state/      what is kept on disk
"""
