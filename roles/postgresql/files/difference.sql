-- Names of declared roles and databases that differ from the server's, and of roles that are declared no more.
WITH role AS (
    SELECT *
    FROM jsonb_to_recordset(%(roles)s::jsonb)
        AS d (name text, password text, connection_limit int, replication boolean, member_of jsonb)
), database AS (
    SELECT *
    FROM jsonb_to_recordset(%(databases)s::jsonb) AS d (name text, owner text, connect jsonb)
)
SELECT
    ARRAY(
        SELECT role.name
        FROM role LEFT JOIN pg_authid AS a ON a.rolname = role.name
        WHERE a.oid IS NULL
           OR a.rolpassword IS DISTINCT FROM role.password
           OR a.rolconnlimit <> role.connection_limit
           OR a.rolreplication <> role.replication
           OR NOT a.rolcanlogin OR a.rolsuper OR a.rolcreatedb OR a.rolcreaterole OR a.rolbypassrls
           OR shobj_description(a.oid, 'pg_authid') IS DISTINCT FROM %(marker)s
    ) AS roles,
    ARRAY(
        SELECT role.name
        FROM role LEFT JOIN pg_authid AS a ON a.rolname = role.name
        WHERE role.member_of <> coalesce((
            SELECT jsonb_agg(g.rolname ORDER BY g.rolname COLLATE "C")
            FROM pg_auth_members AS m JOIN pg_authid AS g ON g.oid = m.roleid
            WHERE m.member = a.oid
        ), '[]')
    ) AS memberships,
    ARRAY(
        SELECT database.name
        FROM database LEFT JOIN pg_database AS d ON d.datname = database.name
        WHERE d.oid IS NULL OR pg_get_userbyid(d.datdba) <> database.owner
    ) AS databases,
    ARRAY(
        SELECT database.name
        FROM database LEFT JOIN pg_database AS d ON d.datname = database.name
        WHERE d.oid IS NULL OR database.connect <> coalesce((
            SELECT jsonb_agg(grantee ORDER BY grantee COLLATE "C")
            FROM (
                SELECT DISTINCT coalesce(r.rolname::text, 'public') AS grantee
                FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS acl
                LEFT JOIN pg_authid AS r ON r.oid = acl.grantee
                WHERE acl.grantee <> d.datdba
            ) AS granted
        ), '[]')
    ) AS grants,
    ARRAY(
        SELECT rolname FROM pg_authid AS a
        WHERE shobj_description(a.oid, 'pg_authid') = %(marker)s
          AND rolname NOT IN (SELECT name FROM role)
    ) AS stale_roles,
    (
        SELECT jsonb_object_agg(datname, pg_get_userbyid(datdba))
        FROM pg_database WHERE datallowconn AND NOT datistemplate
    ) AS owners
