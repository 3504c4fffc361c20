// Clicks and words in; the product's API asked, and its answers shown.

import { measure } from './measure.js';

const $ = (selector) => document.querySelector(selector);
let conversationId = null;
let user = JSON.parse(sessionStorage.getItem('user'));

/** Ask the API; what it refuses is an Error with its sentence. */
async function api(path, { method = 'GET', body } = {}) {
  const answer = await fetch(`/api${path}`, {
    method,
    headers: {
      ...(body && { 'Content-Type': 'application/json' }),
      ...(user && { Authorization: `Bearer ${user.token}` }),
    },
    body: body && JSON.stringify(body),
  });
  if (answer.ok) return answer;
  if (answer.status === 401 && user) logOut();
  const { detail } = await answer.json().catch(() => ({}));
  throw new Error(typeof detail === 'string' ? detail : `The server answered ${answer.status}.`);
}

/** Let a form or button do something; say in words what went wrong. */
function on(selector, kind, deed) {
  const target = $(selector);
  target.addEventListener(kind, async (event) => {
    event.preventDefault();
    const button = target.querySelector('button:not([type])');
    let status = 'success';
    if (button) button.disabled = true;
    target.ariaBusy = 'true';
    $('#said').textContent = '';
    try {
      await deed(target);
    } catch (error) {
      status = 'error';
      $('#said').textContent = error.message;
    } finally {
      if (button) button.disabled = false;
      target.ariaBusy = 'false';
      if (kind === 'submit') measure((relay) => relay.recordFormSubmission(target.id, status));
    }
  });
}

function show(role, text) {
  const line = document.createElement('li');
  line.className = role;
  line.textContent = text;
  $('#messages').append(line);
  line.scrollIntoView({ block: 'end' });
  return line;
}

async function open(id) {
  const { messages } = await (await api(`/conversations/${id}`)).json();
  conversationId = id === 'welcome' ? null : id;
  $('#messages').replaceChildren();
  for (const { role, text } of messages) show(role, text);
}

async function listConversations() {
  const items = user ? await (await api('/conversations')).json() : [];
  $('#conversations').replaceChildren(
    ...items.map(({ id, title }) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.textContent = title;
      button.addEventListener('click', () => open(id));
      const item = document.createElement('li');
      item.append(button);
      return item;
    }),
  );
}

function showUser() {
  measure((relay) => relay.setUserType(user ? 'authenticated' : 'anonymous'));
  $('#login').hidden = Boolean(user);
  $('#who').hidden = !user;
  $('#who span').textContent = user?.name ?? '';
}

function logOut() {
  user = null;
  sessionStorage.removeItem('user');
  conversationId = null;
  showUser();
  $('#conversations').replaceChildren();
}

/** Server-sent events of an answer as {kind, data}, as they come. */
async function* events(answer) {
  let rest = '';
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split('\n\n');
    rest = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(part.split('\n').map((line) => line.split(/: (.*)/s)));
      yield { kind: fields.event ?? 'token', data: JSON.parse(fields.data) };
    }
  }
}

on('#chat', 'submit', async (form) => {
  const message = form.elements.message.value;
  form.elements.message.value = '';
  show('user', message);
  const line = show('assistant', '');
  try {
    const body = { message, model: form.elements.model.value, conversation_id: conversationId };
    for await (const { kind, data } of events(await api('/chat/stream', { method: 'POST', body }))) {
      if (kind === 'error') throw new Error(data.error);
      if (kind === 'end') conversationId = data.conversation_id;
      else line.textContent += data.token;
      line.scrollIntoView({ block: 'end' });
    }
  } finally {
    if (!line.textContent) line.remove();
  }
  await listConversations();
});

on('#search', 'submit', async (form) => {
  const q = form.elements.q.value;
  const found = await (await api(`/search?q=${encodeURIComponent(q)}`)).json();
  $('#messages').replaceChildren();
  if (!found.length) show('assistant', `Nothing about “${q}” yet.`);
  for (const { conversation_id: id, text } of found) show('found', text).addEventListener('click', () => open(id));
});

on('#login', 'submit', async (form) => {
  const body = { name: form.elements.name.value, password: form.elements.password.value };
  user = await (await api('/login', { method: 'POST', body })).json();
  sessionStorage.setItem('user', JSON.stringify(user));
  form.reset();
  conversationId = null;
  showUser();
  await listConversations();
});

on('#logout', 'click', logOut);
on('#new', 'click', () => open('welcome'));

showUser();
open('welcome').then(listConversations).catch((error) => {
  $('#said').textContent = error.message;
});
