-- The roles of the database. The image runs this once, on a new volume, as the superuser over the
-- socket; it can be run again at any time and then mends what is missing:
--     cargo xtask psql -- -U postgres -f - <deploy/postgres/roles.sql
--
--   postgres   superuser; only over the socket inside the container, without a password
--   owner      owns the database and its schema; applies the migrations
--   app        the backend (the name is PG_USER); reads and writes rows, changes no table
--   backup     reads everything; only over the socket
\set ON_ERROR_STOP on
\getenv app PG_USER
\getenv db POSTGRES_DB
-- The first line of a secret's file is its current value. Taken from the file by psql itself, so that
-- it stands in no argument list.
\set app_password `head -n 1 "$PG_PASSWORD_FILE"`
\set owner_password `head -n 1 "$PG_OWNER_PASSWORD_FILE"`

BEGIN;
-- A statement that sets a password must not reach the log, neither when it fails nor when it is slow.
SET LOCAL log_min_error_statement = 'panic';
SET LOCAL log_min_duration_statement = -1;

SELECT format('CREATE ROLE %I LOGIN', name) FROM unnest(ARRAY['owner', 'backup', :'app']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE owner NOSUPERUSER NOCREATEROLE NOCREATEDB PASSWORD :'owner_password';
ALTER ROLE :"app" NOSUPERUSER NOCREATEROLE NOCREATEDB PASSWORD :'app_password';
ALTER ROLE backup NOSUPERUSER NOCREATEROLE NOCREATEDB PASSWORD NULL;
-- The image set one, because it insists.
ALTER ROLE postgres PASSWORD NULL;

-- How long a statement may take, wait for a lock, and leave a transaction idle. A request is given
-- up after ten seconds; a migration sets its own; a backup may take as long as it needs.
ALTER ROLE :"app" SET statement_timeout = '5s';
ALTER ROLE :"app" SET lock_timeout = '3s';
ALTER ROLE :"app" SET idle_in_transaction_session_timeout = '10s';
-- Who waits to change a table makes everybody wait behind it: not for longer than they can.
ALTER ROLE owner SET lock_timeout = '800ms';
ALTER ROLE owner SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE backup SET default_transaction_read_only = on;
ALTER ROLE backup SET lock_timeout = '60s';
-- Between two answers to a client that compresses what it gets.
ALTER ROLE backup SET idle_in_transaction_session_timeout = '0';

GRANT pg_read_all_data TO backup;
-- Which knows neither large objects nor policies for rows: a backup has all of them.
ALTER ROLE backup BYPASSRLS;
ALTER ROLE backup SET lo_compat_privileges = on;

ALTER DATABASE :"db" OWNER TO owner;
REVOKE ALL ON DATABASE :"db", postgres, template1 FROM PUBLIC;
GRANT CONNECT ON DATABASE :"db" TO :"app", backup;
GRANT CONNECT ON DATABASE postgres, template1 TO backup;

SELECT NOT EXISTS (
  SELECT FROM pg_default_acl, aclexplode(defaclacl) AS entry
  WHERE defaclrole = 'owner'::regrole AND defaclobjtype = 'r' AND defaclnamespace = 0
    AND grantee = (SELECT oid FROM pg_roles WHERE rolname = :'app')
) AS app_is_new \gset

-- What the owner's migrations will create, the application may use: rows, not tables.
ALTER DEFAULT PRIVILEGES FOR ROLE owner GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"app";
ALTER DEFAULT PRIVILEGES FOR ROLE owner GRANT USAGE, SELECT ON SEQUENCES TO :"app";

-- What they have created already, as after a restore from a stack where PG_USER was another name: the
-- application gets what its former name has there, and no more, because a migration may have taken
-- rights away; once, when this file first meets the new name, because a later one may do so again. The former name
-- is who may write rows by default, as above, and is not the present one. Of two nobody can tell which it was.
WITH candidates AS (
  SELECT entry.grantee FROM pg_default_acl, aclexplode(defaclacl) AS entry
  WHERE :'app_is_new'::boolean
    AND defaclrole = 'owner'::regrole AND defaclobjtype = 'r' AND defaclnamespace = 0
    AND privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    AND grantee NOT IN (0, 'owner'::regrole, (SELECT oid FROM pg_roles WHERE rolname = :'app'))
  GROUP BY entry.grantee HAVING count(DISTINCT privilege_type) = 4
), former AS (
  SELECT grantee FROM candidates WHERE (SELECT count(*) FROM candidates) = 1
), things (kind, name, acl, part) AS (
  SELECT 'SCHEMA', format('%I', nspname), nspacl, '' FROM pg_namespace
  UNION ALL
  SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, oid::regclass::text, relacl, ''
  FROM pg_class
  UNION ALL
  SELECT 'TABLE', attrelid::regclass::text, attacl, format('(%I)', attname) FROM pg_attribute
  WHERE NOT attisdropped
  UNION ALL
  SELECT 'ROUTINE', oid::regprocedure::text, proacl, '' FROM pg_proc
)
SELECT DISTINCT format('GRANT %s %s ON %s %s TO %I', privilege_type, part, kind, name, :'app')
FROM things, aclexplode(acl) AS entry JOIN former USING (grantee) \gexec

COMMIT;
