"""The ledger: the state of every set and bundle, written before the next step begins.

It is one SQLite file in the state directory, or a PostgreSQL database if one is configured. Only the
service's user can read it, because it contains the keys of unfinished bundles. The kinds of record:

- a *set*: one for each name in a spool folder: its state and its members;
- a *target*: one for each cloud of a set: its bucket, its images with their ids, its remarks;
- a *bundle*: one for each content and role on a cloud: its place and its progress. Sets with the same kernel
  share its bundle. The row is written before the effect: `planned` before the first part is uploaded,
  `registering` before RegisterImage is called;
- a *digest*: the digest of a file while its stamp is unchanged, and its plain SHA-256 if that differs and was
  needed, so that no unchanged file is read twice;
- a *cloud*: its detected generation, for times when it cannot be asked;
- a *request* or a *hold*: from the command line, for the daemon;
- files *leaving* a folder, from before the first is moved until after the last;
- *progress*: how far the work on a set is, for `status`.

The program opens a ledger with `ledger.open`, and uses it through `ledger.api`. The operations are in
`ledger.sql_ledger` and the `sql_…` modules beside it, once for both databases. A store executes their
statements in transactions: `ledger.sqlite_store` or `ledger.postgres_store`.
"""
