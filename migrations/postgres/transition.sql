{{- /*
The trigger that refuses illegal changes of a row's state: the same rules as
sqlite/0001_files.sql, over mapped columns and words. Words that are none of
the contract's are the customer's own business, as long as the row is ACTIVE
when desnode meets it.

A restoration (a transaction that says so by desnode.restoring) may go further:
to the record's version, and from a row that no pack has straight to what the
record says. The rights to the columns say who can.
*/ -}}
{{- define "rule" -}}
  (CASE
    WHEN was = is_now THEN {{.NewVersion}} = {{.OldVersion}}
      OR restoring AND was IN ('ACTIVE', 'MARKED', 'FAILED') AND {{.NewVersion}} > coalesce({{.OldVersion}}, 0)
    WHEN was = 'ACTIVE' AND is_now = 'MARKED' THEN {{.NewVersion}} = {{.OldVersion}} + 1
    WHEN restoring AND was IN ('ACTIVE', 'MARKED') AND is_now IN ('PACKED', 'DELETED_SOURCE')
      THEN {{.OldPack}} IS NULL AND {{.NewVersion}} >= greatest({{.OldVersion}}, 1)
    WHEN {{.NewVersion}} <> {{.OldVersion}} THEN false
    WHEN was = 'MARKED' AND is_now = 'PACKED' THEN true
    WHEN was = 'PACKED' AND is_now = 'DELETED_SOURCE' THEN {{.OldClaim}} = {{.NewClaim}}
    WHEN was IN ('ACTIVE', 'MARKED') AND is_now = 'FAILED' THEN {{.NewError}} IS NOT NULL
    -- marked_at tells which state it failed in.
    WHEN was = 'FAILED' AND is_now = 'MARKED' THEN {{.OldMarkedAt}} IS NOT NULL
    WHEN is_now = 'ACTIVE' THEN was = 'OTHER' OR changed OR was = 'DELETED_SOURCE'
      OR (was = 'FAILED' AND {{.OldMarkedAt}} IS NULL)
    WHEN is_now = 'OTHER' THEN was = 'ACTIVE'
    ELSE false
  END) IS TRUE
{{- end -}}
{{- define "table" -}}
DECLARE
  was     text := {{.OldStatus}};
  is_now  text := {{.NewStatus}};
  restoring boolean := coalesce(current_setting('desnode.restoring', true), '') = 'on';
  changed boolean := NEW.{{.Size}} IS DISTINCT FROM OLD.{{.Size}} OR NEW.{{.ModifiedAt}} IS DISTINCT FROM OLD.{{.ModifiedAt}};
BEGIN
  IF NOT {{template "rule" .}} THEN
    RAISE EXCEPTION 'desnode: illegal transition of a file''s state or version: % (version %) to % (version %)',
      was, {{.OldVersion}}, is_now, {{.NewVersion}} USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.{{.ID}} IS DISTINCT FROM OLD.{{.ID}}
    OR OLD.{{.Version}} > 0 AND (NEW.{{.Name}} IS DISTINCT FROM OLD.{{.Name}} OR NEW.{{.DesName}} IS DISTINCT FROM OLD.{{.DesName}}) THEN
    RAISE EXCEPTION 'desnode: id and name are frozen once a file is marked' USING ERRCODE = 'check_violation';
  END IF;
  IF changed AND is_now NOT IN ('ACTIVE', 'OTHER') THEN
    -- Under a state that vouches for the old file it would be taken for what was archived.
    RAISE EXCEPTION 'desnode: a changed file goes back to the state ACTIVE' USING ERRCODE = 'check_violation';
  END IF;
  IF is_now = 'ACTIVE' AND was <> 'ACTIVE' THEN
    NEW.{{.Claim}} := NULL;
    NEW.{{.Attempts}} := 0;
    NEW.{{.Error}} := NULL;
    NEW.{{.LastAttemptAt}} := NULL;
  END IF;
  RETURN NEW;
END
{{- end -}}
