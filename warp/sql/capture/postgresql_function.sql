-- Puts the keys of the rows that one statement wrote into the queue; one entry for a truncation.
--
-- Both keys of an update, since it may have changed them.  It runs with its owner's rights, so the
-- application needs none on the queue; nothing in it is looked up by the caller's search_path, which
-- setting anew would cost each statement.
create or replace function {function}() returns trigger language plpgsql security definer
    {settings} as {body}
