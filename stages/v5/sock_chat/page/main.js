/** What the page consists of, and how it is connected: everything goes through act(). */

import { Composer } from "./composer.js";
import { Connection } from "./connection.js";
import { Conversation } from "./conversation.js";
import { Log } from "./log.js";
import * as memory from "./memory.js";
import { SignIn } from "./sign_in.js";
import { View } from "./view.js";

const POLL = 45_000; // milliseconds after which the rooms are asked for
const SOON = 2_000; // after somebody has come or gone
const PER_PERSON = 50; // and longer where there are many, who would all ask
const SAVED = 250; // after a message
const HIDDEN_FRAME = 200; // milliseconds; a page that nobody sees is not drawn

const kept = memory.load();
const chat = new Conversation(kept, Date.now);
let drawing = false;
/** @type {Record<string, unknown>} */
let unsaved = {};
let saveTimer = 0;
let roomsTimer = 0;

const connection = new Connection({
  address: () => {
    const url = new URL("ws", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.search = chat.query;
    url.hash = "";
    return url.href;
  },
  opened: () => act(() => chat.opened()),
  received: (events) => act(() => chat.receive(events)),
  closed: (code) => act(() => chat.closed(code)),
  changed: () => view.showConnection(connection, chat),
  probe: () => act(() => chat.command("/rooms", true)),
});
const view = new View({
  join: (room) => act(() => {
    chat.open();
    chat.command(`/join ${room}`);
    composer.focus();
  }),
  open: (nick) => act(() => {
    chat.open(nick);
    composer.focus();
  }),
  leave: () => act(() => chat.command("/quit")),
  retry: () => connection.connect(),
  reenter: () => act(() => chat.reenter()),
  earlier: () => act(() => chat.command("/history 200", true)),
});
const log = new Log({
  retry: (entry) => act(() => chat.retry(entry)),
  attended: (attended) => act(() => chat.attend(attended)),
});
const composer = new Composer({
  submit: (text) => {
    let taken = false;
    act(() => { taken = chat.submit(text); });
    if (taken) log.follow();
    return taken;
  },
  excess: (text) => chat.excess(text),
  draft: (text) => {
    memory.saveDraft(text);
  },
});
const signIn = new SignIn({
  enter: (nick, password) => act(() => chat.enter(nick, password)),
  answer: (password) => act(() => chat.answerPassword(password)),
});

/** Let something happen in the conversation, do what follows, and show it.
 * @param {() => void} change */
function act(change) {
  change();
  for (const effect of chat.take()) {
    if ("send" in effect) connection.send(effect.send);
    else if ("connect" in effect) connection.connect();
    else if ("reconnect" in effect) connection.retry(effect.reconnect);
    else if ("settled" in effect) connection.settle();
    else if ("announce" in effect) view.announce(effect.announce);
    else keep(effect.save);
  }
  connection.patient = chat.waits;
  if (chat.changes.has("members")) askRooms(SOON + PER_PERSON * chat.people.count * Math.random());
  if (chat.changes.size && !drawing) {
    drawing = true;
    if (document.hidden) setTimeout(draw, HIDDEN_FRAME);
    else requestAnimationFrame(draw);
  }
}

function draw() {
  const changes = new Set(chat.changes);
  const entries = new Set(chat.changedEntries);
  drawing = false;
  chat.changes.clear();
  chat.changedEntries.clear();
  const wasOut = document.documentElement.dataset.phase === "out";
  view.show(chat, changes);
  view.showConnection(connection, chat);
  if (changes.has("state")) signIn.show(chat);
  composer.show(chat.privates.open ?? chat.people);
  if (chat.phase === "out") return;
  if (wasOut) composer.focus();
  log.show(chat.shown, entries);
}

/** @param {Record<string, unknown>} values */
function keep(values) {
  unsaved = { ...unsaved, ...values };
  if ("token" in values) saveNow();
  else saveTimer ||= setTimeout(saveNow, SAVED);
}

function saveNow() {
  clearTimeout(saveTimer);
  saveTimer = 0;
  memory.save(unsaved);
  unsaved = {};
}

/** @param {number} delay */
function askRooms(delay) {
  if (document.hidden || roomsTimer) return;
  roomsTimer = setTimeout(() => {
    roomsTimer = 0;
    act(() => chat.command("/rooms", true));
  }, delay);
}

addEventListener("pagehide", saveNow);
setInterval(() => askRooms(0), POLL);
composer.restore(kept.draft ?? "");
act(() => {
  if (chat.phase === "in") chat.reenter();
});
