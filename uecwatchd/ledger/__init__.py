"""The memory of the service: the state of every set and bundle, written before the next step is taken.

One SQLite file in the state directory, readable by the service's user alone because it holds the keys of
bundles under way. The kinds of record:

- a *set*: one per name in a spool folder: its state, what it was made of, the ids it got;
- a *bundle*: one per content and role on a cloud: where it lies, how far it has come. Sets that share a
  kernel share its bundle. The row is written before the effect it announces: `planned` before the first part
  goes up, `registering` before RegisterImage is asked;
- a *digest*: what a file is told apart by as long as its stamp stands, and its plain SHA-256 where that is
  another and was asked for, so that nothing unchanged is read twice;
- a *cloud*: which generation it was found to be, for as long as it cannot be asked;
- a *request* or a *hold*: what somebody asked for on the command line, for the daemon to find;
- what is *leaving* a folder, from before its first file is moved until after the last;
- an *advance*: the progress of the work on a set, for `status`.
"""
