-- An account to sign in with: demo@example.com, password `demo-password`.
INSERT INTO accounts (email, password_hash)
VALUES ('demo@example.com', '$argon2id$v=19$m=19456,t=2,p=1$2bdfQSo5U5PfSrEapebzCw$/nQhsgYsqEYo5o8e8vWuXM3uNk9FsvsjWg4FmwgrZ1A')
ON CONFLICT (email) DO NOTHING;
