"""A guestbook: entries live in PostgreSQL, the count of visits in Redis."""

import html

import psycopg2
import redis
from flask import Flask, redirect, request

app = Flask(__name__)
visits = redis.Redis(host="cache")

PAGE = """<!doctype html>
<title>Guestbook</title>
<h1>Guestbook</h1>
<form method="post"><input name="text" required><button>Sign</button></form>
<ul>{entries}</ul>
<p>{count} visits</p>
"""


def database():
    connection = psycopg2.connect(host="db", user="postgres", dbname="postgres")
    connection.autocommit = True
    return connection


with database() as connection:
    connection.cursor().execute("create table if not exists entries (id serial primary key, text text not null)")


@app.get("/")
def show():
    with database() as connection, connection.cursor() as cursor:
        cursor.execute("select text from entries order by id desc limit 100")
        entries = "".join(f"<li>{html.escape(text)}</li>" for (text,) in cursor.fetchall())
    return PAGE.format(entries=entries, count=visits.incr("visits"))


@app.post("/")
def sign():
    with database() as connection, connection.cursor() as cursor:
        cursor.execute("insert into entries (text) values (%s)", (request.form["text"],))
    return redirect("/", 303)


@app.get("/healthz")
def healthy():
    with database() as connection, connection.cursor() as cursor:
        cursor.execute("select 1")
    visits.ping()
    return "ok\n"
