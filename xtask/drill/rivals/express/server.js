// The backend's `GET` and `POST /api/notes` on Express: the session from Redis, the rows from
// PostgreSQL, nothing else. A rival in a benchmark; README.md says what it leaves out.
'use strict';

const cluster = require('cluster');
const fs = require('fs');
const express = require('express');
const { Pool } = require('pg');
const { createClient } = require('redis');

const IDLE_SECONDS = 7 * 24 * 60 * 60;
const CONNECTIONS = 10;
const PROCESSES = Number(process.env.PROCESSES || 1);

// The first line is the current value.
const secret = (name) => fs.readFileSync(`/run/secrets/${name}`, 'utf8').split('\n')[0];

async function serve() {
  const db = new Pool({
    host: process.env.PG_HOST,
    user: process.env.PG_USER,
    database: process.env.PG_DBNAME,
    password: secret('pg_password'),
    max: Math.ceil(CONNECTIONS / PROCESSES),
  });
  const redis = createClient({
    socket: { host: process.env.REDIS_HOST, port: 6379 },
    username: 'backend',
    password: secret('redis_password'),
  });
  redis.on('error', (error) => console.error(`redis: ${error.message}`));
  await redis.connect();

  async function signedIn(request, response, next) {
    try {
      const found = /(?:^|; )session=([^;]+)/.exec(request.headers.cookie || '');
      const record = found && (await redis.getEx(`session:${found[1]}`, { EX: IDLE_SECONDS }));
      if (!record) return response.status(401).json({ status: 401 });
      request.account = JSON.parse(record).account_id;
      return next();
    } catch (error) {
      return next(error);
    }
  }

  const note = (row) => ({ id: Number(row.id), text: row.text, created_at: row.created_at });
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');

  app.get('/api/notes', signedIn, async (request, response, next) => {
    try {
      const limit = Number(request.query.limit || 20);
      const { rows } = await db.query({
        name: 'list',
        text: `SELECT id, text, created_at FROM notes
               WHERE account_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3`,
        values: [request.account, '9223372036854775807', limit + 1],
      });
      const notes = rows.slice(0, limit).map(note);
      const more = rows.length > limit ? { next_before: notes[notes.length - 1].id } : {};
      response.json({ notes, ...more });
    } catch (error) {
      next(error);
    }
  });

  app.post('/api/notes', signedIn, express.json(), async (request, response, next) => {
    try {
      const { rows } = await db.query({
        name: 'create',
        text: `INSERT INTO notes (account_id, text) VALUES ($1, $2)
               RETURNING id, text, created_at`,
        values: [request.account, request.body.text],
      });
      response.status(201).json(note(rows[0]));
    } catch (error) {
      next(error);
    }
  });

  app.listen(3000);
}

process.on('SIGTERM', () => process.exit(0));
if (cluster.isPrimary && PROCESSES > 1) {
  for (let number = 0; number < PROCESSES; number += 1) cluster.fork();
} else {
  serve().catch((error) => {
    console.error(error.message);
    process.exit(1);
  });
}
