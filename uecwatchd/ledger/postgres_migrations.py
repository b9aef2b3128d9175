"""The tables of the ledger in PostgreSQL, as the steps from each version to the next.

Tables and columns are those of `migrations`, whose steps up to the first version here are one step. A step
there needs a step here: a test compares what both make. Text is ordered by its bytes, as SQLite orders it,
and flags are BOOLEAN. The one row of `ledger` has the version.

Several hosts may have one database. The tables in `TABLES_OF_HOSTS` have the rows of each host, by a column
`host` that only they have. A host reads and changes its own rows, and those of its shared folders, through
views of the same columns, with `own_` before the name of the table. Row-level security would do the same, but
lets superusers through.

Hosts of two versions work side by side. A step that only adds, such as a table, an index, or a column with a
default, changes nothing for an older program: it names the columns that it writes, and skips what it does not
know. What an older program needs is taken away by a later step, in a version of its own. That step raises
`LEAST_STEPS`: it waits until no older service works, and from then on those say so and wait.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# With the rest of their primary keys, unless these are numbers or tokens.
TABLES_OF_HOSTS = {
    "sets": "folder, name",
    "targets": "folder, name, cloud",
    "images": "folder, name, cloud, role",
    "digests": "device, inode, reading",
    "holds": "folder, name",
    "cloud_holds": "folder, name, cloud",
    "advances": "folder, name",
    "leaving": "folder, path",
    "probes": "cloud",
    "announced": "folder, name",
    "totals": "what, label, detail",
    "versions": "folder, name, cloud, image_id",
    "clouds": "name",
    "requests": "",
    "story": "",
    "attempts": "",
    "messages": "",
    "boots": "",
}


# Tables with rows of a shared folder; see `_shared`. What one host has to do, such as its messages, its test
# boots and its progress, stays its own.
SHARED_TABLES = (
    *("sets", "targets", "images", "holds", "cloud_holds", "leaving", "announced", "versions"),
    *("requests", "story", "attempts"),
)


def _shared(table: str) -> str:
    """Return the statement that gives new rows of a shared folder to the share, by `host` = *FOLDER."""
    return f"CREATE TRIGGER share BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION share_row();"


def _with_host(table: str, key: str) -> str:
    """Return the statements that give the rows of a table a host, and its primary key, if it has one."""
    column = f"ALTER TABLE {table} ADD COLUMN host words DEFAULT current_setting('uecwatchd.host');"
    change = f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey, ADD PRIMARY KEY (host, {key});"
    return f"{column} {change if key else ''}"


# Each entry takes the schema from its index to the next version; a released entry is never edited.
POSTGRES_MIGRATIONS = (
    """
    CREATE DOMAIN words AS TEXT COLLATE "C" NOT NULL;
    CREATE TABLE sets (
        folder words, name words, stamp words, state words, stage words, attempt BIGINT NOT NULL,
        since DOUBLE PRECISION NOT NULL, next_retry DOUBLE PRECISION, reason words, arch words,
        deferrals BIGINT NOT NULL, first_failure DOUBLE PRECISION, members words, error TEXT, owner BIGINT,
        inspection TEXT, cloud words, build TEXT, PRIMARY KEY (folder, name)
    );
    CREATE TABLE targets (
        folder words, name words, cloud words, bucket words, fingerprint words, remarks words,
        is_current BOOLEAN NOT NULL, place BIGINT NOT NULL, is_required BOOLEAN NOT NULL, status TEXT,
        PRIMARY KEY (folder, name, cloud)
    );
    CREATE TABLE images (
        folder words, name words, cloud words, role words, image_id words, manifest words,
        parts BIGINT NOT NULL, pending words, attributes TEXT, PRIMARY KEY (folder, name, cloud, role)
    );
    CREATE INDEX images_by_id ON images (cloud, image_id);
    CREATE INDEX images_by_attributes
        ON images (cloud, split_part(split_part(attributes, '"image_id": "', 2), '"', 1));
    CREATE INDEX targets_by_cloud ON targets (cloud);
    CREATE INDEX sets_by_name ON sets (name);
    CREATE INDEX sets_by_content_1 ON sets (split_part(split_part(members, '"sha256": "', 2), '"', 1));
    CREATE INDEX sets_by_content_2 ON sets (split_part(split_part(members, '"sha256": "', 3), '"', 1));
    CREATE INDEX sets_by_content_3 ON sets (split_part(split_part(members, '"sha256": "', 4), '"', 1));
    CREATE TABLE bundles (
        cloud words, bucket words, identity words, role words, sha256 words, prefix words, state words,
        secret_key BYTEA, secret_iv BYTEA, parts BIGINT NOT NULL, bundled_size BIGINT NOT NULL,
        image_id words, made_for words, registered DOUBLE PRECISION, objects words, boot words, sealed words,
        renewed BOOLEAN NOT NULL, owner BIGINT, on_trial BOOLEAN NOT NULL, archive_name words,
        PRIMARY KEY (cloud, identity)
    );
    CREATE INDEX bundles_by_set ON bundles (made_for);
    CREATE TABLE clouds (name words PRIMARY KEY, dialect words, address words);
    CREATE TABLE digests (
        device BIGINT NOT NULL, inode BIGINT NOT NULL, size BIGINT NOT NULL, ctime_ns BIGINT NOT NULL,
        reading words, sha256 words, PRIMARY KEY (device, inode, reading)
    );
    CREATE TABLE requests (
        number BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, folder words, name words, verb words,
        cloud words, image_id words, due DOUBLE PRECISION
    );
    CREATE TABLE holds (
        folder words, name words, since DOUBLE PRECISION NOT NULL, PRIMARY KEY (folder, name)
    );
    CREATE TABLE cloud_holds (
        folder words, name words, cloud words, since DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (folder, name, cloud)
    );
    CREATE TABLE advances (
        folder words, name words, stage words, file words, done BIGINT NOT NULL, total BIGINT NOT NULL,
        part BIGINT NOT NULL, began DOUBLE PRECISION NOT NULL, moment DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (folder, name)
    );
    CREATE TABLE leaving (folder words, path words, stamp words, way words, PRIMARY KEY (folder, path));
    CREATE TABLE probes (cloud words PRIMARY KEY, moment DOUBLE PRECISION NOT NULL);
    CREATE TABLE story (
        number BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, folder words, name words,
        moment DOUBLE PRECISION NOT NULL, kind words, level words, sentence words, fields words
    );
    CREATE INDEX story_by_set ON story (folder, name, number);
    CREATE TABLE attempts (
        number BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, folder words, name words,
        attempt BIGINT NOT NULL, began DOUBLE PRECISION NOT NULL, ended DOUBLE PRECISION NOT NULL,
        state words, cloud words, stages words, ids words, sent BIGINT NOT NULL, replaced words,
        problem words, request_ids words
    );
    CREATE INDEX attempts_by_set ON attempts (folder, name, number);
    CREATE TABLE messages (
        number BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, id words, folder words, name words,
        outcome words, moment DOUBLE PRECISION NOT NULL, way words, body words, tries BIGINT NOT NULL,
        next_try DOUBLE PRECISION NOT NULL, problem words
    );
    CREATE TABLE announced (
        folder words, name words, outcome words, since DOUBLE PRECISION NOT NULL, PRIMARY KEY (folder, name)
    );
    CREATE TABLE totals (
        what words, label words, detail words, value DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (what, label, detail)
    );
    CREATE TABLE boots (
        token words PRIMARY KEY, cloud words, image_id words, folder words, name words,
        began DOUBLE PRECISION NOT NULL, others words, instance_id words
    );
    CREATE TABLE booted (
        cloud words, image_id words, passed DOUBLE PRECISION NOT NULL, PRIMARY KEY (cloud, image_id)
    );
    CREATE TABLE versions (
        folder words, name words, cloud words, image_id words, role words, state words,
        published DOUBLE PRECISION NOT NULL, since DOUBLE PRECISION NOT NULL, passed BOOLEAN NOT NULL,
        replaced_by words, retention words, replaced DOUBLE PRECISION,
        PRIMARY KEY (folder, name, cloud, image_id)
    );
    CREATE INDEX versions_by_image ON versions (cloud, image_id);
    CREATE TABLE made_buckets (cloud words, bucket words, PRIMARY KEY (cloud, bucket));
    CREATE TABLE ledger (version BIGINT NOT NULL, home words);
    """,
    """
    ALTER TABLE sets ADD COLUMN began DOUBLE PRECISION NOT NULL DEFAULT 0;
    """,
    # Rows of several hosts. Those that are there belong to the host that makes this step.
    "".join(
        (
            *(_with_host(table, key) for table, key in TABLES_OF_HOSTS.items()),
            """
    DROP INDEX targets_by_cloud, story_by_set, attempts_by_set;
    CREATE INDEX targets_by_cloud ON targets (host, cloud);
    CREATE INDEX story_by_set ON story (host, folder, name, number);
    CREATE INDEX attempts_by_set ON attempts (host, folder, name, number);
    CREATE TABLE hosts (host words PRIMARY KEY, home words);
    INSERT INTO hosts SELECT current_setting('uecwatchd.host'), home FROM ledger;
    ALTER TABLE ledger DROP COLUMN home;
    UPDATE bundles SET made_for = current_setting('uecwatchd.host') || ':' || made_for WHERE made_for <> '';
    """,
        )
    ),
    # The hosts that work with the ledger, each with its lease, and the bundles that are theirs for now.
    """
    ALTER TABLE bundles ADD COLUMN generation BIGINT NOT NULL DEFAULT 0;
    CREATE TABLE sessions (
        id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, host words, version words,
        began TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(), lease_until TIMESTAMPTZ NOT NULL,
        ended TIMESTAMPTZ
    );
    CREATE INDEX sessions_by_host ON sessions (host, id);
    CREATE INDEX open_sessions ON sessions (lease_until) WHERE ended IS NULL;
    CREATE TABLE claims (claim words PRIMARY KEY, session BIGINT REFERENCES sessions, settled_at TIMESTAMPTZ);
    CREATE INDEX claims_by_session ON claims (session);
    CREATE TABLE fleet_clouds (name words PRIMARY KEY, place words);
    ALTER TABLE hosts ADD COLUMN drained BOOLEAN NOT NULL DEFAULT false;
    """,
    """
    CREATE INDEX sets_by_build ON sets (host, split_part(split_part(build, '"key": "', 2), '"', 1))
        WHERE build IS NOT NULL;
    """,
    # Versions side by side: how many steps a program has to know, and those of each host do.
    """
    ALTER TABLE ledger ADD COLUMN least BIGINT NOT NULL DEFAULT 0;
    ALTER TABLE sessions ADD COLUMN steps BIGINT NOT NULL DEFAULT 0;
    """,
    # For those who look at all hosts: how many sets are in each state, and which are the last.
    """
    CREATE INDEX sets_by_state ON sets (state, since) INCLUDE (host);
    """,
    # What hosts do at clouds: the limits that they share, and which of them probes one that is away.
    """
    CREATE TABLE cloud_uses (
        session BIGINT REFERENCES sessions ON DELETE CASCADE, cloud words, use words, most BIGINT,
        waits_since TIMESTAMPTZ, PRIMARY KEY (session, cloud, use)
    );
    CREATE INDEX cloud_uses_by_cloud ON cloud_uses (cloud, use);
    CREATE TABLE slots (
        cloud words, use words, number BIGINT NOT NULL,
        session BIGINT REFERENCES sessions ON DELETE SET NULL, PRIMARY KEY (cloud, use, number)
    );
    CREATE INDEX slots_by_session ON slots (session);
    CREATE TABLE outages (
        cloud words PRIMARY KEY, what words, why words, hint words, found_by words,
        session BIGINT REFERENCES sessions ON DELETE SET NULL,
        probe_at TIMESTAMPTZ NOT NULL, taken_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
    );
    """,
    # Folders that several hosts work on, each with the session that scans it, and their due sets. The digests
    # of the files there have a negative number in place of the device; see `types.share_number`.
    "".join(
        (
            """
    CREATE TABLE shares (
        folder words PRIMARY KEY, id words, is_marked BOOLEAN NOT NULL DEFAULT false,
        session BIGINT REFERENCES sessions ON DELETE SET NULL
    );
    CREATE TABLE offers (
        folder words, name words, stamp words, size BIGINT NOT NULL, is_kept BOOLEAN NOT NULL,
        session BIGINT REFERENCES sessions ON DELETE CASCADE, PRIMARY KEY (folder, name)
    );
    CREATE INDEX offers_by_session ON offers (session);
    CREATE INDEX free_offers ON offers (size, folder, name) WHERE session IS NULL AND NOT is_kept;
    CREATE FUNCTION share_row() RETURNS trigger LANGUAGE plpgsql AS $do$
    BEGIN
        IF NEW.folder = ANY (string_to_array(current_setting('uecwatchd.shares', true), chr(10))) THEN
            NEW.host := '*' || NEW.folder;
        END IF;
        RETURN NEW;
    END
    $do$;
    CREATE FUNCTION share_digest() RETURNS trigger LANGUAGE plpgsql AS $do$
    BEGIN
        NEW.host := '*';
        RETURN NEW;
    END
    $do$;
    CREATE TRIGGER share BEFORE INSERT ON digests FOR EACH ROW WHEN (NEW.device < 0)
        EXECUTE FUNCTION share_digest();
    """,
            *map(_shared, SHARED_TABLES),
        )
    ),
    """
    CREATE INDEX bundles_by_content ON bundles (cloud, sha256);
    CREATE INDEX bundles_by_image ON bundles (image_id);
    """,
)

# A program that knows fewer steps cannot use the tables any more.
LEAST_STEPS = 10


@dataclass(frozen=True, slots=True)
class PostgresSchema:
    """The tables of one version of the program."""

    steps: Sequence[str]
    least: int  #: number of steps that another program has to know to use them, too


SCHEMA = PostgresSchema(POSTGRES_MIGRATIONS, LEAST_STEPS)

# The names in `host` of the rows that a host may change: its own, and those of its shared folders.
OWN_HOSTS = """string_to_array(
    coalesce(nullif(current_setting('uecwatchd.hosts', true), ''), current_setting('uecwatchd.host')), chr(10)
)"""
# After the steps, because a view has the columns that its table had when it was made.
VIEWS = """
DO $do$
DECLARE view RECORD;
BEGIN
    FOR view IN
        SELECT relname AS of, string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS columns
        FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE relnamespace = current_schema()::regnamespace AND attnum > 0 AND NOT attisdropped
            AND attname <> 'host' AND relname = ANY (string_to_array('{tables}', ' '))
        GROUP BY relname
    LOOP
        EXECUTE format(
            $query$CREATE OR REPLACE VIEW own_%s AS SELECT %s FROM %s WHERE host = ANY ({hosts})$query$,
            view.of, view.columns, view.of
        );
    END LOOP;
END
$do$
""".replace("{tables}", " ".join(TABLES_OF_HOSTS)).replace("{hosts}", OWN_HOSTS)
