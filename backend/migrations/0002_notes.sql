-- The sample domain.
CREATE TABLE notes (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id bigint      NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    text       text        NOT NULL
                           CONSTRAINT notes_text_length CHECK (char_length(text) BETWEEN 1 AND 2000),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Serves the one query there is: an account's notes, newest first, from a given one on.
CREATE INDEX notes_by_account ON notes (account_id, id DESC);
