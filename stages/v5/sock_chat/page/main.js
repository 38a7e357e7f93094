/** What the page consists of, and how it is connected: everything goes through act(). */

import { Composer } from "./view/composer.js";
import { Connection } from "./connection.js";
import { Conversation } from "./chat/conversation.js";
import { Log } from "./view/log.js";
import * as memory from "./memory.js";
import { EARLIER } from "./chat/reception.js";
import { SignIn } from "./view/sign_in.js";
import { ask, command, excess, retry, submit } from "./chat/speech.js";
import { View } from "./view/view.js";

const POLL = 45_000; // milliseconds after which the rooms are asked for
const SOON = 2_000; // after somebody has come or gone
const PER_PERSON = 50; // and longer where there are many, who would all ask
const SAVED = 250; // after a message
const LATEST = 200; // after a change: a page that nobody sees has no frames, but a title

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
  probe: () => act(() => ask(chat, "/rooms")),
});
const view = new View({
  join: (room) => act(() => {
    chat.open();
    showComposer();
    command(chat, `/join ${room}`);
    composer.focus();
  }),
  open: (nick) => act(() => {
    chat.open(nick);
    showComposer(); // what is typed from now on is for this place
    composer.focus();
  }),
  leave: () => act(() => command(chat, "/quit")),
  retry: () => {
    if (connection.state === "waiting") connection.connect();
  },
  reenter: () => act(() => chat.reenter()),
});
const log = new Log({
  retry: (entry) => act(() => {
    retry(chat, entry);
    composer.focus(); // the button goes
  }),
  attended: (attended) => act(() => chat.attend(attended)),
  earlier: () => act(() => ask(chat, EARLIER)),
});
const composer = new Composer({
  submit: (text) => {
    let taken = false;
    act(() => { taken = submit(chat, text); });
    if (taken) log.follow();
    return taken;
  },
  excess: (text) => excess(chat, text),
  draft: (text) => {
    if (!chat.privates.open) memory.saveDraft(text); // nor is it to be said in the room later
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
    else if ("disconnect" in effect) connection.stop();
    else if ("settled" in effect) connection.settle();
    else if ("announce" in effect) view.announce(effect.announce);
    else keep(effect.save);
  }
  connection.patient = chat.waits;
  if (chat.changes.has("members")) askRooms(SOON + PER_PERSON * chat.people.count * Math.random());
  if (chat.changes.size && !drawing) {
    drawing = true;
    requestAnimationFrame(draw);
    setTimeout(draw, LATEST);
  }
}

function showComposer() {
  composer.show(chat.privates.open ?? chat.people);
}

function draw() {
  if (!drawing) return;
  const changes = new Set(chat.changes);
  const entries = new Set(chat.changedEntries);
  drawing = false;
  chat.changes.clear();
  chat.changedEntries.clear();
  const phase = document.documentElement.dataset.phase;
  view.show(chat, changes);
  view.showConnection(connection, chat);
  if (changes.has("state")) signIn.show(chat);
  showComposer();
  if (chat.phase === "out") return;
  if (phase !== chat.phase) {
    if (chat.phase === "in") composer.focus();
    else view.focusEnd();
  }
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
    act(() => ask(chat, "/rooms"));
  }, delay);
}

addEventListener("pagehide", saveNow);
setInterval(() => askRooms(0), POLL);
composer.restore(kept.draft ?? "");
act(() => {
  if (chat.phase === "in") chat.reenter();
});
