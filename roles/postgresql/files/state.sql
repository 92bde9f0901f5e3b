-- What the files on disk mean for the running server: errors in them, settings that wait for a restart,
-- whether a file is newer than the last reload, and declared settings that ALTER SYSTEM overrides.
WITH settings AS (
    SELECT f.*, s.context
    FROM pg_file_settings AS f
    LEFT JOIN pg_settings AS s USING (name)
    WHERE f.error IS NOT NULL
)
SELECT
    ARRAY(
        SELECT format('%%s line %%s: %%s', coalesce(sourcefile, 'settings'), sourceline, error)
        FROM settings
        WHERE context IS DISTINCT FROM 'postmaster'
          AND error NOT LIKE '%%cannot be changed without restarting the server'
        UNION ALL
        SELECT format('pg_hba.conf line %%s: %%s', line_number, error)
        FROM pg_hba_file_rules
        WHERE error IS NOT NULL
    ) AS errors,
    ARRAY(
        SELECT name FROM pg_settings WHERE pending_restart
        UNION
        SELECT coalesce(name, error) FROM settings
        WHERE context = 'postmaster'
           OR error LIKE '%%cannot be changed without restarting the server'
    ) AS restart,
    (
        SELECT bool_or((pg_stat_file(path, true)).modification > pg_conf_load_time())
        FROM jsonb_array_elements_text(%(files)s::jsonb) AS path
    ) AS reload,
    ARRAY(
        SELECT name FROM pg_file_settings
        WHERE sourcefile LIKE '%%/postgresql.auto.conf' AND name IN (SELECT jsonb_array_elements_text(%(names)s::jsonb))
    ) AS overridden
