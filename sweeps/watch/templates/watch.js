"use strict";
/* Asks for the page's parts while it is looked at, and puts those that have changed into their places. */
(() => {
  const PAUSE = { live: 2000, ended: 5000, gone: 5000 }, PATIENCE = 20000;  // milliseconds
  const meta = (name) => document.querySelector(`meta[name="${name}"]`).content;
  const token = meta("watch-token"), server = meta("watch-server");
  const byId = (id) => document.getElementById(id);
  const dialog = byId("stop-dialog"), gone = byId("gone"), failed = byId("stop-failed");
  const shown = new Map();  // part -> its HTML as it was put in
  let version = "", timer = 0, isAsking = false, isLive = true;

  const putIn = (name, html) => {
    if (shown.get(name) === html) return;
    const place = byId(`part-${name}`), focused = place.contains(document.activeElement) ? document.activeElement.id : "";
    const open = [...place.querySelectorAll("details[open]")].map((details) => details.id);
    shown.set(name, html);
    place.innerHTML = html;
    for (const id of open) if (id && byId(id)) byId(id).open = true;
    if (focused && byId(focused)) byId(focused).focus({ preventScroll: true });
  };

  const ask = async () => {
    if (isAsking || document.hidden) return;
    isAsking = true;
    document.documentElement.dataset.asking = "true";
    clearTimeout(timer);
    let pause = PAUSE.gone;
    try {
      const answer = await fetch(`/parts?have=${version}`, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
      if (!answer.ok) throw new Error(answer.status);
      if (answer.status === 200) {
        const now = await answer.json();
        if (now.server !== server) return location.reload();  // another process: this page's token is of no use
        version = answer.headers.get("X-Version");
        document.title = now.title;
        isLive = now.is_live;
        for (const [name, html] of Object.entries(now.html)) putIn(name, html);
      }
      document.documentElement.dataset.asked = String(Number(document.documentElement.dataset.asked || 0) + 1);
      gone.hidden = true;
      pause = isLive ? PAUSE.live : PAUSE.ended;
    } catch {
      if (gone.hidden) byId("gone-since").textContent = new Date().toLocaleTimeString();
      gone.hidden = false;
    } finally {
      isAsking = false;
      delete document.documentElement.dataset.asking;
      timer = setTimeout(ask, pause);
    }
  };

  const stop = async (button) => {
    button.disabled = true;
    failed.hidden = true;
    try {
      const answer = await fetch("/stop", { method: "POST", headers: { "X-Watch-Token": token } });
      if (!answer.ok) throw new Error((await answer.json()).reason);
      dialog.close();
      ask();
    } catch (error) {
      failed.textContent = `It was not stopped: ${error.message}`;
      failed.hidden = false;
    } finally {
      button.disabled = false;
    }
  };

  const copy = async (button) => {
    const code = button.parentNode.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {  // without the permission, the old way
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  };

  document.addEventListener("click", ({ target }) => {
    if (target.id === "stop") { failed.hidden = true; dialog.showModal(); }
    if (target.id === "stop-yes") stop(target);
    if (target.id === "stop-no") dialog.close();
    if (target.matches("button.copy")) copy(target);
  });
  document.addEventListener("visibilitychange", ask);
  ask();
})();
