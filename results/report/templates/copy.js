"use strict";
/* Copies a command; the buttons are shown only where this script runs. */
(() => {
  const copied = (button) => {
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  };
  const selectAndCopy = (code) => {
    getSelection().selectAllChildren(code);
    return document.execCommand("copy");
  };
  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = button.parentNode.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        copied(button);
      } catch {
        if (selectAndCopy(code)) copied(button);  // without the permission, the old way
      }
    });
  }
})();
