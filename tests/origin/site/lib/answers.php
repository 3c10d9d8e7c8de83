<?php

declare(strict_types=1);

// Whole answers, and the pages of the frontend.

/** A page with a title and a body, as the frontend would frame it. */
function html(string $title, string $body): string
{
    return "<!DOCTYPE html>\n<html lang=\"en-US\"><head><meta charset=\"utf-8\">\n"
        . "<!--\n\tThis website is powered by TYPO3 - inspiring people to share!\n-->\n"
        . "<title>$title</title><meta name=\"generator\" content=\"TYPO3 CMS\"></head>\n<body>\n$body\n</body></html>\n";
}

/** Sends a status, fields and a body with its length. */
function answer(int $status, string $body, array $fields = [], string $type = 'text/html; charset=utf-8'): void
{
    http_response_code($status);
    header('Content-Type: ' . $type);
    foreach ($fields as $field) {
        header($field, false);
    }
    // Apache drops the length itself where the status has no body.
    header('Content-Length: ' . strlen($body));
    if ($_SERVER['REQUEST_METHOD'] !== 'HEAD') {
        echo $body;
    }
}

/** The head of a frontend page without a session, as 13.4 sends it. */
const FRONTEND = ['Content-Language: en-US', 'Cache-Control: private, no-store'];

function frontend(string $path): void
{
    if ($path === '/' || $path === '/index.php') {
        answer(200, html('Home', '<h1>Home</h1><p>Welcome.</p>'), FRONTEND);
    } elseif ($path === '/members') {
        answer(403, html('Access denied', '<h1>Access denied</h1>'));
    } elseif ($path === '/broken') {
        answer(500, html('Oops, an error occurred!', '<h1>Oops, an error occurred!</h1>'));
    } elseif ($path === '/framed') {
        // Tells whoever frames it that it was allowed to load.
        answer(200, html('Framed', '<script>parent.postMessage("framed", "*");</script>'), FRONTEND);
    } elseif ($path === '/framing') {
        $src = htmlspecialchars($_GET['src'] ?? '/framed', ENT_QUOTES);
        answer(200, html('Framing', "<script>addEventListener('message', (m) => {"
            . " document.documentElement.dataset.frame = m.data; });</script>\n<iframe src=\"$src\"></iframe>"), FRONTEND);
    } else {
        answer(404, html('Page not found', '<h1>Page not found</h1>'));
    }
}

/** Logins of visitors (felogin), and of HTTP Basic; false if it is neither. */
function visitor(string $path, string $line): bool
{
    $body = parsedBody();
    $modern = (float)$line >= 12.0;
    $gone = 'Set-Cookie: fe_typo_user=deleted; expires=Sat, 22 Nov 2025 13:39:47 GMT; Max-Age=0; path=/;' . secure() . ' httponly; samesite=lax';
    $fresh = 'Set-Cookie: fe_typo_user=' . bin2hex(random_bytes(32)) . '; path=/;' . secure() . ' httponly; samesite=lax';
    if (($body['logintype'] ?? '') === 'login') {
        $right = hasToken($body, $line) && ($body['pass'] ?? '') === 'correct horse';
        $nonces = $modern && hasToken($body, $line) ? consumedNonces() : [];
        match (true) {
            ($body['user'] ?? '') === 'limited' => answer(403, html('Login Request Rate Limited', '<h1>Login Request Rate Limited</h1>')),
            $right => answer(200, html('Login', '<h3>You are logged in</h3>'), [...FRONTEND, $fresh, ...$nonces]),
            default => answer(200, html('Login', '<h3>Login failure</h3>'), [...FRONTEND, ...($modern ? [$gone] : []), ...$nonces]),
        };
    } elseif (($body['logintype'] ?? '') === 'logout') {
        answer(200, html('Login', '<h3>You have logged out</h3>'), [...FRONTEND, $gone]);
    } elseif ($path === '/contact' || $path === '/login') {
        // A form takes a session when it is shown.
        answer(200, html('Contact', '<form></form>'), [...FRONTEND, ...($_SERVER['REQUEST_METHOD'] === 'GET' ? [$fresh] : [])]);
    } elseif ($path === '/basic') {
        $right = ($_SERVER['PHP_AUTH_USER'] ?? '') === 'editor' && ($_SERVER['PHP_AUTH_PW'] ?? '') === 'correct horse';
        answer($right ? 200 : 401, html('Staging', ''), $right ? [] : ['WWW-Authenticate: Basic realm="staging"']);
    } else {
        return false;
    }
    return true;
}
