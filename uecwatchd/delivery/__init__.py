"""One member on its way into the cloud: bundled, uploaded and registered, once for each content.

The steps, with what the ledger says after each:

1. look: is there an image at this location already? then it is ours to *adopt*, whatever the ledger knew,
   unless the set asked for `on_existing = "fail"` and it is not the set's own
2. what the set began with another content, and will never finish, is taken out of the bucket
3. `planned`: the place in the bucket and the keys are decided and written down
4. the parts go up, several at a time, straight from memory; the manifest last, when the ids that stand in it
   are known: `uploaded`
5. the bucket is looked over: every object is there with the size and the ETag that it was sent with, and if
   that is wanted, the whole bundle is fetched and opened
6. the files are looked at once more: from a set that has changed under us nothing is registered
7. `registering` is written down, and RegisterImage is asked. An image that is pending for longer than
   moments ends the attempt with `Pending`: the next one finds it at step 1
8. `registered`, with the id; the keys are forgotten
"""
