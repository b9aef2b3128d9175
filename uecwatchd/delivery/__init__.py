"""Deliver one member into the cloud: bundled, uploaded and registered, once for each content.

The steps, with what the ledger says after each:

1. Look: is there an image at this location already? Then it is ours to *adopt*, whatever the ledger says,
   unless the set asked for `on_existing = "fail"` and did not begin this image itself.
2. Remove what the set began with an earlier content: nothing will ever finish it.
3. `planned`: decide the place in the bucket and the keys, and write them down.
4. Send the parts, several at a time, straight from memory; the manifest last: `uploaded`.
5. Check the bucket: every object is there with the size and the ETag that it was sent with. If the
   configuration wants it, fetch the whole bundle and open it.
6. Check the files once more: nothing is registered of a set that has changed since.
7. Write down `registering`, then send RegisterImage, which answers with an id.
8. Look at the image. `registered` if it is available: the id is kept, the keys are forgotten. If it is
   pending, the id is kept with `registering`.

A set's kernel and ramdisk take these steps first, since the machine's manifest names their ids. If one of
them is pending, the machine goes as far as step 4 in that time; it is registered once both are available.
An image that is pending for longer than moments ends the attempt with `Pending`. The next attempt finds it in
step 1.
"""
