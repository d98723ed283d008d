-- Lets a client send a request again without writing twice: the key that it chose, and a hash of
-- what it sent with it. Kept as long as the note is.
ALTER TABLE notes
    ADD COLUMN request_key  text,
    ADD COLUMN request_hash bytea,
    -- NOT VALID takes no look at the rows that exist; they have neither.
    ADD CONSTRAINT notes_request_whole
        CHECK ((request_key IS NULL) = (request_hash IS NULL)) NOT VALID;
