-- A database of projects with the features that make read models difficult. The application that owns it is
-- independent of the syncer. The statements that the syncer needs are at the end.

CREATE SCHEMA "Büro";
CREATE TYPE state AS ENUM ('draft', 'open', 'on hold', 'closed');
CREATE TYPE "Büro"."Rang" AS ENUM ('Azubi', 'Gesellin', 'Meister');

-- A composite key of text and integer, which can change.
CREATE TABLE tenants (
    code text,
    nr integer,
    name text NOT NULL,
    active boolean NOT NULL,
    since date,
    rate numeric(12, 4),
    PRIMARY KEY (code, nr)
);

-- Mixed-case and non-ASCII names; keys of arbitrary text, which can change; a second unique column to link to.
CREATE TABLE "Büro"."Person" (
    "Kürzel" text PRIMARY KEY,
    "Ausweis" text NOT NULL UNIQUE,
    "Voller Name" text NOT NULL,
    "Rang" "Büro"."Rang" NOT NULL,
    aktiv boolean NOT NULL
);

-- A self-reference, a nullable foreign key of two columns, and a link (`lead`) without a foreign key, to an
-- "Ausweis" that may not exist yet.
CREATE TABLE projects (
    id bigint PRIMARY KEY,
    tenant_code text,
    tenant_nr integer,
    parent_id bigint REFERENCES projects ON UPDATE CASCADE ON DELETE SET NULL,
    title text NOT NULL,
    state state NOT NULL,
    budget numeric(30, 10),
    lead text,
    created timestamptz NOT NULL,
    meta jsonb,
    digest bytea,
    title_length integer GENERATED ALWAYS AS (length(title)) STORED,
    FOREIGN KEY (tenant_code, tenant_nr) REFERENCES tenants ON UPDATE CASCADE ON DELETE SET NULL
);

-- Partitioned: a task that changes its region moves to another partition.
CREATE TABLE tasks (
    id bigint,
    region text,
    project_id bigint NOT NULL REFERENCES projects ON UPDATE CASCADE ON DELETE CASCADE,
    assignee text REFERENCES "Büro"."Person" ON UPDATE CASCADE ON DELETE SET NULL,
    title text NOT NULL,
    hours numeric(8, 2) NOT NULL,
    done boolean,
    due timestamptz,
    cost numeric GENERATED ALWAYS AS (hours * 12.5) STORED,
    PRIMARY KEY (id, region)
) PARTITION BY LIST (region);
CREATE TABLE tasks_north PARTITION OF tasks FOR VALUES IN ('north', 'n|rd\lich');
CREATE TABLE tasks_south PARTITION OF tasks FOR VALUES IN ('south');
CREATE TABLE "Büro"."Übrige" PARTITION OF tasks DEFAULT;

CREATE TABLE entries (
    id bigint PRIMARY KEY,
    task_id bigint NOT NULL,
    region text NOT NULL,
    minutes integer NOT NULL,
    spent_on date NOT NULL,
    note text,
    FOREIGN KEY (task_id, region) REFERENCES tasks ON UPDATE CASCADE ON DELETE CASCADE
);

CREATE TABLE labels (id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE project_labels (
    project_id bigint REFERENCES projects ON UPDATE CASCADE ON DELETE CASCADE,
    label_id integer REFERENCES labels ON UPDATE CASCADE ON DELETE CASCADE,
    rank integer,
    PRIMARY KEY (project_id, label_id)
);

CREATE INDEX ON projects (tenant_code, tenant_nr);
CREATE INDEX ON projects (parent_id);
CREATE INDEX ON projects (lead);
CREATE INDEX ON tasks (project_id);
CREATE INDEX ON tasks (assignee);
CREATE INDEX ON entries (task_id, region);
CREATE INDEX ON project_labels (label_id);

-- Replica identities. Two tables use an index, so the old rows in their events have fewer columns.
CREATE UNIQUE INDEX entries_link ON entries (id, task_id, region);
CREATE UNIQUE INDEX person_link ON "Büro"."Person" ("Kürzel", "Ausweis");
ALTER TABLE entries REPLICA IDENTITY USING INDEX entries_link;
ALTER TABLE "Büro"."Person" REPLICA IDENTITY USING INDEX person_link;
ALTER TABLE projects REPLICA IDENTITY FULL;
ALTER TABLE tasks_north REPLICA IDENTITY FULL;
ALTER TABLE tasks_south REPLICA IDENTITY FULL;
ALTER TABLE "Büro"."Übrige" REPLICA IDENTITY FULL;
