// Forms with data-passkey: the browser makes a passkey ("create") or answers with one ("get"). The form's action says
// where the answer goes; what the browser needs for it is at the same path with /options.
"use strict";

const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

const post = async (form, path, body) => {
  const headers = { "content-type": "application/json", "x-form-token": form.dataset.formToken };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), redirect: "follow" });
  if (answer.redirected) {
    location.assign(answer.url);
    return null;
  }
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.message);
  return content;
};

const listed = (credentials) => (credentials ?? []).map((one) => ({ ...one, id: bytes(one.id) }));

const create = (options) =>
  navigator.credentials.create({
    publicKey: {
      ...options,
      challenge: bytes(options.challenge),
      user: { ...options.user, id: bytes(options.user.id) },
      excludeCredentials: listed(options.excludeCredentials),
    },
  });

const get = (options) =>
  navigator.credentials.get({
    publicKey: {
      ...options,
      challenge: bytes(options.challenge),
      allowCredentials: listed(options.allowCredentials),
    },
  });

const told = (credential) => {
  const said = credential.response;
  const response = { clientDataJSON: text(said.clientDataJSON) };
  for (const name of ["attestationObject", "authenticatorData", "signature", "userHandle"]) {
    if (said[name]) response[name] = text(said[name]);
  }
  return { id: credential.id, rawId: text(credential.rawId), type: credential.type, response };
};

const run = async (form) => {
  const action = form.getAttribute("action");
  const options = await post(form, `${action}/options`, {});
  if (options === null) return;
  const credential = await (form.dataset.passkey === "create" ? create(options) : get(options));
  const fields = Object.fromEntries(new FormData(form));
  const done = await post(form, action, { ...fields, credential: told(credential) });
  if (done !== null) location.assign(done.location);
};

for (const form of document.querySelectorAll("form[data-passkey]")) {
  form.hidden = !window.PublicKeyCredential;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    const wrong = form.querySelector(".wrong");
    wrong.hidden = true;
    button.disabled = true;
    try {
      await run(form);
    } catch (error) {
      wrong.textContent =
        error.name === "NotAllowedError" ? "No passkey was used. Try again, or another way." : error.message;
      wrong.hidden = false;
    } finally {
      button.disabled = false;
    }
  });
}
