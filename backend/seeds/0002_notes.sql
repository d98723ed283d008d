-- Two notes for the demo account, unless it has some: running the seeds again adds nothing.
INSERT INTO notes (account_id, text)
SELECT accounts.id, sample.text
FROM accounts,
     (VALUES (1, 'Water the plants on Thursday.'),
             (2, 'Ask Grace about the second edition.')) AS sample (place, text)
WHERE accounts.email = 'demo@example.com'
  AND NOT EXISTS (SELECT FROM notes WHERE notes.account_id = accounts.id)
ORDER BY sample.place;
