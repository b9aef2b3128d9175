"""The tables of the ledger in SQLite, as the steps from each version to the next.

Tables and columns are public: they are not renamed. Columns of `sets`, and keys of its members, that belong
to one cloud moved to `targets` and `images` with their names; only `furnished` is called `attributes` there.
"""

# Each entry takes the schema from its index to the next version; a released entry is never edited.
MIGRATIONS = (
    """
    CREATE TABLE sets (
        folder TEXT NOT NULL, name TEXT NOT NULL, stamp TEXT NOT NULL, state TEXT NOT NULL,
        stage TEXT NOT NULL, attempt INTEGER NOT NULL, since REAL NOT NULL, next_retry REAL,
        reason TEXT NOT NULL, cloud TEXT NOT NULL, bucket TEXT NOT NULL, arch TEXT NOT NULL,
        deferrals INTEGER NOT NULL, first_failure REAL, idle TEXT NOT NULL, members TEXT NOT NULL,
        fingerprint TEXT NOT NULL, remarks TEXT NOT NULL, error TEXT,
        PRIMARY KEY (folder, name)
    ) STRICT;
    CREATE TABLE bundles (
        cloud TEXT NOT NULL, bucket TEXT NOT NULL, identity TEXT NOT NULL, role TEXT NOT NULL,
        sha256 TEXT NOT NULL, prefix TEXT NOT NULL, state TEXT NOT NULL, secret_key BLOB, secret_iv BLOB,
        parts INTEGER NOT NULL, bundled_size INTEGER NOT NULL, image_id TEXT NOT NULL,
        made_for TEXT NOT NULL, registered REAL, objects TEXT NOT NULL,
        PRIMARY KEY (cloud, identity)
    ) STRICT;
    CREATE TABLE clouds (
        name TEXT NOT NULL PRIMARY KEY, dialect TEXT NOT NULL, address TEXT NOT NULL
    ) STRICT;
    CREATE TABLE digests (
        device INTEGER NOT NULL, inode INTEGER NOT NULL, size INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
        sha256 TEXT NOT NULL,
        PRIMARY KEY (device, inode)
    ) STRICT;
    """,
    # Requests and holds have separate tables, because another process writes them while a daemon runs.
    """
    CREATE TABLE requests (
        number INTEGER PRIMARY KEY AUTOINCREMENT, folder TEXT NOT NULL, name TEXT NOT NULL, verb TEXT NOT NULL
    ) STRICT;
    CREATE TABLE holds (
        folder TEXT NOT NULL, name TEXT NOT NULL, since REAL NOT NULL, PRIMARY KEY (folder, name)
    ) STRICT;
    CREATE TABLE advances (
        folder TEXT NOT NULL, name TEXT NOT NULL, stage TEXT NOT NULL, file TEXT NOT NULL,
        done INTEGER NOT NULL, total INTEGER NOT NULL, part INTEGER NOT NULL,
        began REAL NOT NULL, moment REAL NOT NULL, PRIMARY KEY (folder, name)
    ) STRICT;
    """,
    # Files that are about to leave a folder: half a set would be taken for another one.
    """
    CREATE TABLE leaving (
        folder TEXT NOT NULL, path TEXT NOT NULL, stamp TEXT NOT NULL, way TEXT NOT NULL,
        PRIMARY KEY (folder, path)
    ) STRICT;
    """,
    # When a daemon will probe suspended clouds, for `status`.
    """
    CREATE TABLE probes (cloud TEXT NOT NULL PRIMARY KEY, moment REAL NOT NULL) STRICT;
    """,
    # The ids in a machine's manifest: its parts stay valid if a kernel gets another id.
    """
    ALTER TABLE bundles ADD COLUMN boot TEXT NOT NULL DEFAULT '';
    """,
    # The plain SHA-256 of a file with another kind of digest, if it was needed.
    """
    ALTER TABLE digests ADD COLUMN sum TEXT;
    """,
    # The certificates that a manifest was made with, because it is useless after they have changed; and if an
    # image that stayed pending was registered a second time.
    """
    ALTER TABLE bundles ADD COLUMN sealed TEXT NOT NULL DEFAULT '';
    ALTER TABLE bundles ADD COLUMN renewed INTEGER NOT NULL DEFAULT 0;
    """,
    # The uid of the owner of a set and its image; unknown for older ones until their files are scanned.
    """
    ALTER TABLE sets ADD COLUMN owner INTEGER;
    ALTER TABLE bundles ADD COLUMN owner INTEGER;
    """,
    # What a set has on one cloud, apart from its files: another cloud gives the same files other ids.
    """
    CREATE TABLE targets (
        folder TEXT NOT NULL, name TEXT NOT NULL, cloud TEXT NOT NULL, bucket TEXT NOT NULL,
        fingerprint TEXT NOT NULL, remarks TEXT NOT NULL, is_current INTEGER NOT NULL,
        PRIMARY KEY (folder, name, cloud)
    ) STRICT;
    CREATE TABLE images (
        folder TEXT NOT NULL, name TEXT NOT NULL, cloud TEXT NOT NULL, role TEXT NOT NULL,
        image_id TEXT NOT NULL, manifest TEXT NOT NULL, parts INTEGER NOT NULL, pending TEXT NOT NULL,
        attributes TEXT,
        PRIMARY KEY (folder, name, cloud, role)
    ) STRICT;
    CREATE INDEX images_by_id ON images (cloud, image_id);
    CREATE INDEX images_by_attributes ON images (cloud, json_extract(attributes, '$.image_id'));
    CREATE INDEX targets_by_cloud ON targets (cloud);
    CREATE INDEX sets_by_name ON sets (name);
    CREATE INDEX bundles_by_set ON bundles (made_for);
    INSERT INTO targets
        SELECT folder, name, cloud, bucket, fingerprint, remarks, 1 FROM sets
        WHERE cloud <> '' OR fingerprint <> '';
    INSERT INTO images
        SELECT
            folder, name, cloud, json_extract(value, '$.role'),
            coalesce(json_extract(value, '$.image_id'), ''),
            coalesce(json_extract(value, '$.manifest'), ''), coalesce(json_extract(value, '$.parts'), 0),
            coalesce(json_extract(value, '$.pending'), ''), json_extract(value, '$.furnished')
        FROM sets, json_each(sets.members) WHERE cloud <> '' OR fingerprint <> '';
    UPDATE sets SET members = (
        SELECT json_group_array(
            json_remove(value, '$.image_id', '$.manifest', '$.parts', '$.pending', '$.furnished')
        ) FROM json_each(sets.members)
    );
    CREATE INDEX sets_by_content_1 ON sets (json_extract(members, '$[0].sha256'));
    CREATE INDEX sets_by_content_2 ON sets (json_extract(members, '$[1].sha256'));
    CREATE INDEX sets_by_content_3 ON sets (json_extract(members, '$[2].sha256'));
    ALTER TABLE sets DROP COLUMN cloud;
    ALTER TABLE sets DROP COLUMN bucket;
    ALTER TABLE sets DROP COLUMN fingerprint;
    ALTER TABLE sets DROP COLUMN remarks;
    """,
    # One file has several digests: of its bytes, of the disk in it, and what `sha256sum` prints.
    """
    CREATE TABLE digests_of (
        device INTEGER NOT NULL, inode INTEGER NOT NULL, size INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
        reading TEXT NOT NULL, sha256 TEXT NOT NULL,
        PRIMARY KEY (device, inode, reading)
    ) STRICT;
    INSERT INTO digests_of SELECT device, inode, size, ctime_ns, 'file', sha256 FROM digests;
    INSERT INTO digests_of
        SELECT device, inode, size, ctime_ns, 'plain', sum FROM digests WHERE sum IS NOT NULL;
    DROP TABLE digests;
    ALTER TABLE digests_of RENAME TO digests;
    """,
    # What is in a machine image.
    """
    ALTER TABLE sets ADD COLUMN inspection TEXT;
    """,
    # What happened to each set, and messages about it that are not delivered yet.
    """
    CREATE TABLE story (
        number INTEGER PRIMARY KEY, folder TEXT NOT NULL, name TEXT NOT NULL, moment REAL NOT NULL,
        kind TEXT NOT NULL, level TEXT NOT NULL, sentence TEXT NOT NULL, fields TEXT NOT NULL
    ) STRICT;
    CREATE INDEX story_by_set ON story (folder, name, number);
    CREATE TABLE attempts (
        number INTEGER PRIMARY KEY, folder TEXT NOT NULL, name TEXT NOT NULL, attempt INTEGER NOT NULL,
        began REAL NOT NULL, ended REAL NOT NULL, state TEXT NOT NULL, cloud TEXT NOT NULL,
        stages TEXT NOT NULL, ids TEXT NOT NULL, sent INTEGER NOT NULL, replaced TEXT NOT NULL,
        problem TEXT NOT NULL, request_ids TEXT NOT NULL
    ) STRICT;
    CREATE INDEX attempts_by_set ON attempts (folder, name, number);
    CREATE TABLE messages (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL, folder TEXT NOT NULL, name TEXT NOT NULL,
        outcome TEXT NOT NULL, moment REAL NOT NULL, way TEXT NOT NULL, body TEXT NOT NULL,
        tries INTEGER NOT NULL, next_try REAL NOT NULL, problem TEXT NOT NULL
    ) STRICT;
    CREATE TABLE announced (
        folder TEXT NOT NULL, name TEXT NOT NULL, outcome TEXT NOT NULL, since REAL NOT NULL,
        PRIMARY KEY (folder, name)
    ) STRICT;
    CREATE TABLE totals (
        what TEXT NOT NULL, label TEXT NOT NULL, detail TEXT NOT NULL, value REAL NOT NULL,
        PRIMARY KEY (what, label, detail)
    ) STRICT;
    """,
    # If a hook may still withdraw an image.
    """
    ALTER TABLE bundles ADD COLUMN on_trial INTEGER NOT NULL DEFAULT 0;
    """,
    # The state of a set on each of several clouds; `cloud` is the one that its own columns are about.
    """
    ALTER TABLE sets ADD COLUMN cloud TEXT NOT NULL DEFAULT '';
    UPDATE sets SET cloud = coalesce(
        (
            SELECT cloud FROM targets
            WHERE targets.folder = sets.folder AND targets.name = sets.name AND is_current
        ),
        ''
    );
    ALTER TABLE sets DROP COLUMN idle;
    ALTER TABLE targets ADD COLUMN place INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE targets ADD COLUMN is_required INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE targets ADD COLUMN status TEXT;
    ALTER TABLE requests ADD COLUMN cloud TEXT NOT NULL DEFAULT '';
    """,
    # Instances that are started to test images, and the images that have passed.
    """
    CREATE TABLE boots (
        token TEXT NOT NULL PRIMARY KEY, cloud TEXT NOT NULL, image_id TEXT NOT NULL, folder TEXT NOT NULL,
        name TEXT NOT NULL, began REAL NOT NULL, others TEXT NOT NULL, instance_id TEXT NOT NULL
    ) STRICT;
    CREATE TABLE booted (
        cloud TEXT NOT NULL, image_id TEXT NOT NULL, passed REAL NOT NULL, PRIMARY KEY (cloud, image_id)
    ) STRICT;
    """,
    # Each published image of a set, and which is in use; requests about one cloud, and for later; buckets
    # that may be deleted when they are empty. A folder is all of `made_for` up to its last slash.
    """
    CREATE TABLE versions (
        folder TEXT NOT NULL, name TEXT NOT NULL, cloud TEXT NOT NULL, image_id TEXT NOT NULL,
        role TEXT NOT NULL, state TEXT NOT NULL, published REAL NOT NULL, since REAL NOT NULL,
        passed INTEGER NOT NULL, replaced_by TEXT NOT NULL, retention TEXT NOT NULL, replaced REAL,
        PRIMARY KEY (folder, name, cloud, image_id)
    ) STRICT;
    CREATE INDEX versions_by_image ON versions (cloud, image_id);
    INSERT INTO versions
        SELECT folder, name, images.cloud, images.image_id, images.role, 'current',
            coalesce(min(registered, since), since), since, 1, '', '{}', NULL
        FROM images
        JOIN targets USING (folder, name, cloud)
        JOIN sets USING (folder, name)
        LEFT JOIN bundles ON bundles.cloud = images.cloud AND bundles.image_id = images.image_id
            AND bundles.state = 'registered'
        WHERE sets.state = 'done' AND targets.is_current AND images.image_id <> '' AND (
            images.role = 'machine' OR NOT EXISTS (
                SELECT 1 FROM images AS main
                WHERE main.folder = images.folder AND main.name = images.name
                    AND main.cloud = images.cloud AND main.role = 'machine'
            )
        );
    INSERT OR IGNORE INTO versions
        SELECT rtrim(place, '/'), substr(made_for, length(place) + 1), cloud, image_id, role, 'older',
            registered, registered, 1, '', '{}', NULL
        FROM (
            SELECT *, rtrim(made_for, replace(made_for, '/', '')) AS place FROM bundles
            WHERE role = 'machine' AND state = 'registered' AND registered IS NOT NULL AND on_trial = 0
                AND made_for <> '' AND image_id <> ''
        );
    ALTER TABLE requests ADD COLUMN image_id TEXT NOT NULL DEFAULT '';
    ALTER TABLE requests ADD COLUMN due REAL;
    CREATE TABLE made_buckets (
        cloud TEXT NOT NULL, bucket TEXT NOT NULL, PRIMARY KEY (cloud, bucket)
    ) STRICT;
    """,
    # The name of the image in the archive of its bundle: the keys differ between clouds, and it does not.
    """
    ALTER TABLE bundles ADD COLUMN archive_name TEXT NOT NULL DEFAULT '';
    """,
    # Holds on one cloud of a set.
    """
    CREATE TABLE cloud_holds (
        folder TEXT NOT NULL, name TEXT NOT NULL, cloud TEXT NOT NULL, since REAL NOT NULL,
        PRIMARY KEY (folder, name, cloud)
    ) STRICT;
    """,
    # The installation that makes the machine image of a set.
    """
    ALTER TABLE sets ADD COLUMN build TEXT;
    """,
    # When the attempt at a set began, of which a wait for its cloud is a part.
    """
    ALTER TABLE sets ADD COLUMN began REAL NOT NULL DEFAULT 0;
    """,
    # How often the upload was begun again under other names, because another host may still send its parts.
    """
    ALTER TABLE bundles ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
    """,
    """
    CREATE INDEX sets_by_build ON sets (json_extract(build, '$.key')) WHERE build IS NOT NULL;
    """,
    # Each attempt looks for the bundles of its contents, and of ids that its sidecar gives.
    """
    CREATE INDEX bundles_by_content ON bundles (cloud, sha256);
    CREATE INDEX bundles_by_image ON bundles (image_id);
    """,
)
